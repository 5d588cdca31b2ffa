//! Real programs that the suites use beside our own: nginx, iperf3, haproxy.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::netns::{Namespace, unique_name};
use crate::process::{self, Process};
use crate::topology::Host;
use crate::wait;

/// How long a program may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Where distributions that have nginx's TCP proxy as a module put it.
const STREAM_MODULES: [&str; 2] =
    ["/usr/lib/nginx/modules/ngx_stream_module.so", "/usr/lib64/nginx/modules/ngx_stream_module.so"];

/// A real server program on a backend; dropping it ends it and removes its files.
#[derive(Debug)]
pub struct RealServer {
    /// Before the directory, in which it writes until it ends.
    process: Process,
    directory: PathBuf,
}

impl RealServer {
    /// Starts nginx, which answers every request with the backend's name and a line feed.
    ///
    /// # Errors
    /// When it is not installed or the port is taken.
    pub fn nginx(host: &Host, port: u16) -> Result<Self> {
        let directory = fresh_directory("nginx")?;
        let config = directory.join("nginx.conf");
        std::fs::write(&config, nginx_config(&host.name, port, &directory.display().to_string()))?;
        let mut command = host.namespace.command("nginx");
        command.arg("-p").arg(&directory).arg("-c").arg(&config).arg("-e").arg("stderr");
        Self::started(&host.namespace, command, directory, port)
    }

    /// Starts an iperf3 server, which takes one client at a time, over TCP and UDP.
    ///
    /// # Errors
    /// When it is not installed or the port is taken.
    pub fn iperf3(host: &Host, port: u16) -> Result<Self> {
        let directory = fresh_directory("iperf3")?;
        let mut command = host.namespace.command("iperf3");
        command.args(["--server", "--port", &port.to_string()]);
        Self::started(&host.namespace, command, directory, port)
    }

    /// Starts HAProxy in TCP mode, from the address `front` to the backends in turn.
    ///
    /// # Errors
    /// When it is not installed or the port is taken.
    pub fn haproxy(namespace: &Namespace, front: SocketAddr, backends: &[SocketAddr]) -> Result<Self> {
        let directory = fresh_directory("haproxy")?;
        let mut text = format!(
            "global\n  maxconn 4000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  \
             timeout server 60s\nlisten bench\n  bind {front}\n  balance roundrobin\n"
        );
        for (number, backend) in backends.iter().enumerate() {
            text += &format!("  server b{number} {backend}\n");
        }
        let config = directory.join("haproxy.cfg");
        std::fs::write(&config, text)?;
        let mut command = namespace.command("haproxy");
        command.arg("-db").arg("-f").arg(&config);
        Self::started(namespace, command, directory, front.port())
    }

    /// Starts nginx as a TCP proxy, from the address `front` to the backends in turn.
    ///
    /// # Errors
    /// When it or its `stream` module is not installed, or the port is taken.
    pub fn nginx_stream(namespace: &Namespace, front: SocketAddr, backends: &[SocketAddr]) -> Result<Self> {
        let directory = fresh_directory("stream")?;
        let module = STREAM_MODULES.iter().find(|path| std::path::Path::new(path).is_file());
        let load = module.map_or(String::new(), |path| format!("load_module {path};\n"));
        let servers: String = backends.iter().map(|backend| format!("server {backend}; ")).collect();
        let text = format!(
            "{load}daemon off;\nworker_processes auto;\npid {}/pid;\nerror_log stderr;\n\
             events {{ worker_connections 8192; }}\n\
             stream {{\n  upstream b {{ {servers}}}\n  server {{ listen {front} backlog=4096; proxy_pass b; }}\n}}\n",
            directory.display()
        );
        let config = directory.join("nginx.conf");
        std::fs::write(&config, text)?;
        let mut command = namespace.command("nginx");
        command.arg("-p").arg(&directory).arg("-c").arg(&config).arg("-e").arg("stderr");
        Self::started(namespace, command, directory, front.port())
    }

    fn started(namespace: &Namespace, command: Command, directory: PathBuf, port: u16) -> Result<Self> {
        let log = directory.join("log");
        let process = Process::spawn(command, &log)?;
        let mut server = Self { process, directory };
        let what = format!("port {port} of {} is open", namespace.name());
        wait::until(START_TIMEOUT, &what, || {
            if let Some(status) = server.process.ended()? {
                anyhow::bail!("the server ended ({status}): {}", server.process.log_tail());
            }
            Ok(is_listening(namespace, port)?.then_some(()))
        })?;
        Ok(server)
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        // nginx goes on without its files for the moment until the process guard ends it.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Runs an iperf3 client and returns the report that it prints as JSON.
///
/// # Errors
/// When it is not installed, or the transfer fails.
pub fn iperf3(
    client: &Namespace,
    target: SocketAddr,
    arguments: &[&str],
    timeout: Duration,
) -> Result<Value> {
    let (address, port) = (target.ip().to_string(), target.port().to_string());
    let mut line = vec!["iperf3", "--json", "--client", &address, "--port", &port];
    line.extend(arguments);
    let report = client.must(&line, timeout)?;
    let report: Value = serde_json::from_str(&report).context("iperf3 did not print JSON")?;
    match report["error"].as_str() {
        Some(error) => anyhow::bail!("iperf3: {error}"),
        None => Ok(report),
    }
}

/// Whether `program` can be run: for suites that use a program which is not on every machine.
#[must_use]
pub fn is_installed(program: &str) -> bool {
    let mut command = Command::new("sh");
    command.args(["-c", "command -v \"$0\"", program]);
    process::run(command, START_TIMEOUT).is_ok_and(|output| output.status.success())
}

/// Whether someone in the namespace listens on the TCP port: read from the kernel, because a probing connection would
/// be taken for a client by iperf3, which serves one at a time.
fn is_listening(namespace: &Namespace, port: u16) -> Result<bool> {
    let tables = namespace.run(|| {
        // `/proc/net` is that of the first thread; `thread-self` is this one.
        let read = |file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        Ok::<_, std::io::Error>(read("tcp")? + &read("tcp6")?)
    })?;
    Ok(tables.lines().any(|row| listens_on(row, port)))
}

/// A row of `/proc/net/tcp`: number, local `ADDRESS:PORT` in hexadecimal, remote, state; state 0A is LISTEN.
fn listens_on(row: &str, port: u16) -> bool {
    let mut columns = row.split_whitespace().skip(1);
    let local = columns.next().and_then(|address| address.rsplit_once(':'));
    local.is_some_and(|(_, hex)| u16::from_str_radix(hex, 16) == Ok(port)) && columns.nth(1) == Some("0A")
}

fn fresh_directory(role: &str) -> Result<PathBuf> {
    let directory = std::env::temp_dir().join(unique_name(role));
    std::fs::create_dir(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    Ok(directory)
}

fn nginx_config(name: &str, port: u16, directory: &str) -> String {
    // One worker and no master: a single process, which ends when it is told to.
    format!(
        "daemon off;\nmaster_process off;\npid {directory}/pid;\nerror_log stderr;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n  access_log off;\n  client_body_temp_path {directory}/body;\n  proxy_temp_path {directory}/proxy;\n  \
         fastcgi_temp_path {directory}/fastcgi;\n  uwsgi_temp_path {directory}/uwsgi;\n  scgi_temp_path {directory}/scgi;\n  \
         keepalive_requests 1000000;\n  server {{\n    listen {port} backlog=4096;\n    listen [::]:{port} backlog=4096;\n    \
         location / {{ default_type text/plain; return 200 \"{name}\\n\"; }}\n  }}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_listening_socket_on_that_port_counts() {
        let row = |port, state| {
            format!("   0: 00000000:{port} 00000000:0000 {state} 00000000:00000000 00:00000000")
        };
        assert!(listens_on(&row("1F90", "0A"), 8080));
        assert!(!listens_on(&row("1F90", "01"), 8080));
        assert!(!listens_on(&row("1F91", "0A"), 8080));
        assert!(!listens_on("  sl  local_address rem_address   st", 8080));
    }
}

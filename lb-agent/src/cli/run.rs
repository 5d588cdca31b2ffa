//! `lb-agent run`: the daemon.

use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;
use tracing::info;

use super::changed::{Changed, LOOK_EVERY};
use super::reload::{Again, Reloader};
use super::{Global, allocator, privilege, supervisor, telemetry};
use crate::api::{self, Api, Door};
use crate::config::{Config, DEFAULT_PATH, InterfaceName};
use crate::control::{self, Control, Handle, Parts, Snapshot};
use crate::datapath::kernel;
use crate::health::NetworkProber;
use crate::store::FileStore;

/// Balances: attaches the program, checks backends, takes changes. The daemon; needs root.
///
/// Stopping it, or killing it, stops nothing but that: packets are balanced on, and the next `lb-agent run` takes over
/// where this one left. `lb-agent detach` takes the data plane down.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The configuration file [default: /etc/lb-agent/config.toml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the program is attached, instead of what the configuration says; can be given several times.
    #[arg(long = "interface", value_name = "NAME")]
    interfaces: Vec<InterfaceName>,
    /// Loads the build of the program that logs its decisions. For looking into trouble: it is slow.
    #[arg(long)]
    diagnostics: bool,
}

const EXAMPLES: &str = "\
Examples:
  lb-agent run --interface eth0
  lb-agent run --config /etc/lb-agent/config.toml -v
  RUST_LOG=lb_agent=debug lb-agent run

Signals: SIGTERM and SIGINT stop the daemon; SIGHUP has it read its configuration, tokens and certificate
again, and so does a change of one of those files.";

impl Arguments {
    pub(super) fn execute(self, global: &Global) -> anyhow::Result<()> {
        privilege::require("run")?;
        allocator::give_memory_back();
        let config = self.configuration(global)?;
        telemetry::start(global.verbose, global.quiet)?;
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        daemon(config, (self.file(), &|| self.configuration(global)), &runtime)
    }

    fn configuration(&self, global: &Global) -> anyhow::Result<Config> {
        let mut config = Config::load(self.config.as_deref())?;
        if !self.interfaces.is_empty() {
            config.interfaces.clone_from(&self.interfaces);
        }
        config.socket = global.socket.clone().unwrap_or(config.socket);
        config.diagnostics |= self.diagnostics;
        let path = self.file().display();
        ensure!(
            !config.interfaces.is_empty(),
            "no interface to attach to: name one with --interface, or set `interfaces` in {path}"
        );
        Ok(config)
    }

    /// The file that the configuration stands in.
    fn file(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH))
    }
}

/// What can refuse comes before the data plane is touched; who waits for the socket waits for an agent that answers.
fn daemon(config: Config, (file, again): (&Path, &Again<'_>), runtime: &Runtime) -> anyhow::Result<()> {
    let changed = Changed::since_now(file, &config);
    let store = FileStore::open(&config.state_dir, config.revisions as usize)?;
    let revision = control::load(&store, &config.limits)?;
    api::make_room(&config.socket)?;
    let door = config.http.as_ref().map(|http| runtime.block_on(Door::open(http))).transpose()?;
    let (datapath, network) = kernel::open(&config).context("cannot start the data plane")?;
    let (control, handle) = Control::start(Parts {
        revision,
        store: Box::new(store),
        datapath,
        network,
        prober: Box::new(NetworkProber::new(runtime.handle().clone(), concurrent_probes())),
        limits: config.limits.clone(),
    })?;
    let (listener, mut signals) = {
        let _inside = runtime.enter();
        (api::bind(&config.socket)?, Signals::listen()?)
    };
    let _socket = Removed(config.socket.clone());
    let (thread, mut ended) = own_thread(control)?;
    runtime.block_on(serve((config, again, changed), (listener, door), handle, &mut signals, &mut ended))?;
    // The API held the last handle, so the control task ends when it has done what it was asked.
    ensure!(thread.join().is_ok(), "the control task failed: its log says why");
    info!("stopped; packets are still balanced: `lb-agent run` takes over, `lb-agent detach` takes it down");
    Ok(())
}

/// How many checks may be under way: each takes a descriptor, and half of them are for everything else. Raises the
/// soft limit, which is low for the sake of select(2), as far as it may; the kernel's default hard limit is 4096.
fn concurrent_probes() -> usize {
    const ENOUGH: u64 = 1 << 16;
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(ENOUGH).min(ENOUGH);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    let descriptors = if raised.is_ok() { wanted } else { limit.current.unwrap_or(wanted) };
    (descriptors / 2).clamp(1, ENOUGH) as usize
}

/// Serves the API until a signal asks to stop.
async fn serve(
    (config, again, changed): (Config, &Again<'_>, Changed),
    (listener, door): (UnixListener, Option<Door>),
    handle: Handle,
    signals: &mut Signals,
    ended: &mut oneshot::Receiver<()>,
) -> anyhow::Result<()> {
    let snapshot = handle.snapshot().await?;
    announce(&config, &snapshot);
    let (asked, stopping) = oneshot::channel::<()>();
    let stopped = async {
        // Ready when the sender is dropped.
        let _ = stopping.await;
    };
    let keys = door.as_ref().map(Door::keys).unwrap_or_default();
    let events = handle.events().clone();
    let mut reloader = Reloader { config, again, changed, keys: keys.clone(), events };
    let alive = tokio::spawn(supervisor::watch(handle.clone()));
    let mut served =
        tokio::spawn(api::serve(listener, door, Api { control: handle, gate: keys.gate }, stopped));
    supervisor::ready(&summary(&snapshot));
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let signal = loop {
        let asked = tokio::select! {
            asked = signals.next() => asked,
            _ = looks.tick() => match reloader.changed.look() {
                true => Asked::Reload,
                false => continue,
            },
            _ = &mut *ended => bail!("the control task ended: the log says why; packets are still balanced"),
            failed = &mut served => return failed?.context("the API's socket failed"),
        };
        match asked {
            Asked::Reload => {
                supervisor::reloading();
                reloader.reload();
                supervisor::ready(&summary(&snapshot));
            }
            Asked::Stop(signal) => break signal,
        }
    };
    info!(signal, "stopping");
    supervisor::stopping();
    // It holds a way to the control task, which ends with the last.
    alive.abort();
    drop(asked);
    served.await?.context("the API's socket failed")
}

fn summary(snapshot: &Snapshot) -> String {
    let interfaces: Vec<_> = snapshot.interfaces.iter().map(|interface| interface.name.as_str()).collect();
    format!("balancing on {}", interfaces.join(", "))
}

fn announce(config: &Config, snapshot: &Snapshot) {
    let interfaces: Vec<_> = snapshot.interfaces.iter().map(|i| format!("{} ({})", i.name, i.mode)).collect();
    info!(
        version = env!("CARGO_PKG_VERSION"),
        interfaces = interfaces.join(", "),
        services = snapshot.desired.services.len(),
        backends = snapshot.desired.backend_count(),
        socket = %config.socket.display(),
        http = config.http.as_ref().map(|http| tracing::field::display(http.listen)),
        "ready"
    );
}

/// Runs the control task where its blocking calls into the kernel hold up nobody else. The channel closes when it ends.
fn own_thread(control: Control) -> anyhow::Result<(thread::JoinHandle<()>, oneshot::Receiver<()>)> {
    let runtime = Builder::new_current_thread().enable_time().build()?;
    let (running, ended) = oneshot::channel::<()>();
    let run = move || {
        let _running = running;
        runtime.block_on(control.run());
    };
    let thread = thread::Builder::new().name("control".to_owned()).spawn(run);
    Ok((thread.context("cannot start the control thread")?, ended))
}

/// What a signal asks for.
enum Asked {
    Stop(&'static str),
    Reload,
}

/// The signals that the daemon listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            reload: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Asked::Stop("SIGINT"),
            _ = self.reload.recv() => Asked::Reload,
        }
    }
}

/// A file that goes when this does.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // What cannot be removed is found to be stale by the next agent.
        let _ = std::fs::remove_file(&self.0);
    }
}

//! An HTTP/1.1 client that retries nothing and says exactly what went wrong.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_reuseaddr, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrAny, SocketFlags, SocketType, bind, connect, socket_with};

use crate::bulk::{Checksum, Pattern};

/// A connection to a server of [`crate::server`], or to anything that speaks HTTP/1.1 with content lengths.
#[derive(Debug)]
pub struct HttpClient {
    reader: BufReader<TcpStream>,
    target: SocketAddr,
}

/// An answer without its body.
#[derive(Debug)]
struct Head {
    backend: String,
    length: u64,
}

impl HttpClient {
    /// Connects; `timeout` is for this and for every read and write after it.
    ///
    /// # Errors
    /// As connect(2).
    pub fn connect(target: SocketAddr, timeout: Duration) -> io::Result<Self> {
        Self::over(TcpStream::connect_timeout(&target, timeout)?, target, timeout)
    }

    /// Connects from a given address and port; also from one that has a connection to another target already.
    ///
    /// # Errors
    /// As bind(2) and connect(2).
    pub fn connect_from(local: SocketAddr, target: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &SocketAddrAny::from(local))?;
        // A blocking connect(2) obeys the send timeout.
        set_socket_timeout(&socket, Timeout::Send, Some(timeout))?;
        connect(&socket, &SocketAddrAny::from(target)).map_err(|error| match error {
            // What it says when that time is over.
            Errno::INPROGRESS => ErrorKind::TimedOut.into(),
            other => io::Error::from(other),
        })?;
        Self::over(socket.into(), target, timeout)
    }

    fn over(stream: TcpStream, target: SocketAddr, timeout: Duration) -> io::Result<Self> {
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(stream), target })
    }

    /// The client's own endpoint.
    ///
    /// # Errors
    /// As getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.reader.get_ref().local_addr()
    }

    /// One request on a connection that stays open; returns the backend's name.
    ///
    /// # Errors
    /// For anything but a complete answer.
    pub fn get(&mut self) -> io::Result<String> {
        self.ask("GET", "/", "keep-alive", 0)?;
        let head = self.read_head()?;
        self.read_text(head.length)?;
        Ok(head.backend)
    }

    /// One request and the server's close after it; returns the backend's name.
    ///
    /// # Errors
    /// For anything but a complete answer and an orderly close.
    pub fn get_and_close(mut self) -> io::Result<String> {
        self.ask("GET", "/", "close", 0)?;
        let head = self.read_head()?;
        self.read_text(head.length)?;
        // The server closes first, so that TIME_WAIT is kept there and the client's port is free at once.
        match self.reader.read(&mut [0])? {
            0 => Ok(head.backend),
            _ => Err(io::Error::new(ErrorKind::InvalidData, "more bytes than announced")),
        }
    }

    /// Downloads `length` bytes of [`Pattern`] and compares every one; returns the backend's name.
    ///
    /// # Errors
    /// Also when a byte is not what it should be.
    pub fn download(&mut self, length: u64) -> io::Result<String> {
        self.ask("GET", &format!("/bytes/{length}"), "keep-alive", 0)?;
        let head = self.read_head()?;
        let mut pattern = Pattern::default();
        let mut left = head.length;
        let mut buffer = vec![0; 64 << 10];
        while left > 0 {
            let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let got = self.reader.read(&mut buffer[..want])?;
            if got == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let wrong =
                |at| io::Error::new(ErrorKind::InvalidData, format!("byte {at} is not what was sent"));
            pattern.expect(&buffer[..got]).map_err(wrong)?;
            left -= got as u64;
        }
        if head.length == length { Ok(head.backend) } else { Err(ErrorKind::InvalidData.into()) }
    }

    /// Uploads `length` bytes of [`Pattern`] and compares the checksum that the server counted; returns the backend's
    /// name.
    ///
    /// # Errors
    /// Also when the server has received something else.
    pub fn upload(&mut self, length: usize) -> io::Result<String> {
        let mut body = vec![0; length];
        Pattern::default().fill(&mut body);
        self.ask("POST", "/", "keep-alive", length)?;
        self.reader.get_mut().write_all(&body)?;
        let head = self.read_head()?;
        let answer = self.read_text(head.length)?;
        let expected = format!("{length} {:016x}\n", Checksum::of(&body).value());
        if answer == expected {
            return Ok(head.backend);
        }
        Err(io::Error::new(
            ErrorKind::InvalidData,
            format!("sent {expected:?}, the server received {answer:?}"),
        ))
    }

    fn ask(&mut self, method: &str, path: &str, connection: &str, body_bytes: usize) -> io::Result<()> {
        let host = self.target;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: {connection}\r\ncontent-length: {body_bytes}\r\n\r\n"
        );
        self.reader.get_mut().write_all(request.as_bytes())
    }

    fn read_head(&mut self) -> io::Result<Head> {
        let status = self.read_line()?;
        if status.split(' ').nth(1) != Some("200") {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("the answer is {status:?}")));
        }
        let mut head = Head { backend: String::new(), length: 0 };
        loop {
            let line = self.read_line()?;
            let Some((name, value)) = line.split_once(':') else { return Ok(head) };
            match name.to_ascii_lowercase().as_str() {
                "x-backend" => value.trim().clone_into(&mut head.backend),
                "content-length" => head.length = value.trim().parse().map_err(|_| ErrorKind::InvalidData)?,
                _ => {}
            }
        }
    }

    fn read_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line)? {
            0 => Err(io::Error::new(ErrorKind::UnexpectedEof, "closed before an answer")),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    fn read_text(&mut self, length: u64) -> io::Result<String> {
        let mut text = String::new();
        if (&mut self.reader).take(length).read_to_string(&mut text)? as u64 != length {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "closed within an answer"));
        }
        Ok(text)
    }
}

/// A short, stable name of an I/O error, for counting failures by reason.
#[must_use]
pub fn reason(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "refused".into(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "reset".into(),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "timed out".into(),
        _ => error.to_string(),
    }
}

//! Sockets that can be waited for together with the server's end.

use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt;

/// The read end of a pipe that nobody writes to: it is readable (hung up) once the other end is closed.
#[derive(Debug)]
pub(super) struct Stop(PipeReader);

/// A new pair: closing the first ends every wait on the second.
pub(super) fn stop_pair() -> io::Result<(PipeWriter, Stop)> {
    let (reader, writer) = io::pipe()?;
    Ok((writer, Stop(reader)))
}

impl Stop {
    /// Waits until `socket` can be read; an error once the server is to end.
    pub(super) fn wait_readable(&self, socket: &impl AsFd) -> io::Result<()> {
        self.wait(socket, PollFlags::IN)
    }

    fn wait(&self, socket: &impl AsFd, event: PollFlags) -> io::Result<()> {
        let mut both = [PollFd::new(&self.0, PollFlags::empty()), PollFd::new(socket, event)];
        loop {
            match poll(&mut both, None) {
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if both[0].revents().is_empty() { Ok(()) } else { Err(ErrorKind::ConnectionAborted.into()) }
    }
}

/// An accepted connection whose reads and writes fail once the server is to end.
#[derive(Debug)]
pub(super) struct Connection<'a> {
    stream: TcpStream,
    stopped: &'a Stop,
}

impl<'a> Connection<'a> {
    pub(super) fn new(stream: TcpStream, stopped: &'a Stop) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, stopped })
    }

    /// Makes the coming close send a reset instead of a FIN: RFC 9293 section 3.10.4 by SO_LINGER with time zero.
    pub(super) fn reset(&self) {
        // An error means that there is no connection left to reset.
        let _ = sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO));
    }

    fn retry<T>(&self, event: PollFlags, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match attempt() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.stopped.wait(&self.stream, event)?
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl Read for &Connection<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.retry(PollFlags::IN, || (&self.stream).read(buffer))
    }
}

impl Write for &Connection<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.retry(PollFlags::OUT, || (&self.stream).write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! The Unix socket: root's alone, and one agent's alone.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::process::umask;
use tokio::net::UnixListener;

/// Why the agent cannot listen. One line.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers there.
    #[error("an agent is running already: it answers at {}; stop it first, or give this one another `socket`", .0.display())]
    InUse(PathBuf),
    /// A file of that name is there.
    #[error("{} is there and is no socket: move it away, or set another `socket`", .0.display())]
    NotASocket(PathBuf),
    /// The system does not let us.
    #[error("cannot {action} {}: {error}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Makes room for the socket: its directory where that is missing, and the socket of an agent that is dead away.
///
/// # Errors
/// Where a live agent answers there, something else is in the way, or the system refuses.
pub fn make_room(path: &Path) -> Result<(), SocketError> {
    let failed = |action| move |error| SocketError::Io { action, path: path.to_owned(), error };
    if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(directory).map_err(failed("make the directory of"))?;
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("look at")(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => Err(SocketError::NotASocket(path.to_owned())),
        Ok(_) if UnixStream::connect(path).is_ok() => Err(SocketError::InUse(path.to_owned())),
        Ok(_) => fs::remove_file(path).map_err(failed("replace the stale socket")),
    }
}

/// Listens, where there is room.
///
/// # Errors
/// As [`make_room`].
pub fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    make_room(path)?;
    // The mode at birth: a chmod afterwards would leave a moment in which others can connect.
    let previous = umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    umask(previous);
    listener.map_err(|error| SocketError::Io { action: "listen at", path: path.to_owned(), error })
}

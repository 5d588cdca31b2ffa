//! TCP echo.

use std::io::{self, Read, Write};

use super::Site;
use super::pollable::Connection;

/// Greets with the backend's name and a line feed, then sends back every byte until the client closes.
pub(super) fn serve(mut connection: &Connection<'_>, site: &Site) -> io::Result<()> {
    site.count_request();
    connection.write_all(format!("{}\n", site.backend).as_bytes())?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match connection.read(&mut buffer)? {
            0 => return Ok(()),
            length => connection.write_all(&buffer[..length])?,
        }
    }
}

//! Attaches the program to interfaces: one pinned link each, which later agents take over.

use anyhow::{Context as _, anyhow, bail};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpError, XdpLink};
use aya::programs::{ProgramError, Xdp, XdpMode as AttachMode};
use tracing::{info, warn};

use super::ethtool;
use super::load::chain;
use super::netlink::Interface;
use super::pins::{PinDir, unpin};
use crate::config::XdpMode;

/// Has the interface run the program, in place of an older generation of it where there is one. Tells whether it runs
/// in the driver.
///
/// # Errors
///
/// Where the interface runs somebody else's program, or cannot run one in the mode that is asked for.
pub(super) fn attach(
    pins: &PinDir,
    program: &mut Xdp,
    interface: &Interface,
    mode: XdpMode,
) -> anyhow::Result<bool> {
    let name = &interface.name;
    let native = match adopt(pins, program, interface, mode)? {
        Some(native) => native,
        None => attach_anew(pins, program, interface, mode)?,
    };
    if !native && let Err(error) = ethtool::disable_gro(name) {
        warn!(
            "interface {name}: cannot turn GRO off: {error}; aggregated frames will be refused as too large"
        );
    }
    Ok(native)
}

/// Replaces the program of the link that is pinned for the interface: one step, no packet goes without a program.
/// `None` where there is no such link, or it is not what is attached any more. Tells whether it runs in the driver.
fn adopt(
    pins: &PinDir,
    program: &mut Xdp,
    interface: &Interface,
    mode: XdpMode,
) -> anyhow::Result<Option<bool>> {
    let (name, path) = (&interface.name, pins.link(&interface.name));
    if !path.exists() {
        return Ok(None);
    }
    let link = FdLink::from(
        PinnedLink::from_pin(&path)
            .map_err(|error| anyhow!("cannot open {}: {}", path.display(), chain(&error)))?,
    );
    let info =
        link.info().map_err(|error| anyhow!("cannot ask about {}: {}", path.display(), chain(&error)))?;
    // An interface that was made anew under its old name, or one in another namespace, does not run the link's program.
    let attached = interface.xdp.filter(|attached| attached.id == info.program_id());
    let fits = |native| match mode {
        XdpMode::Auto => true,
        XdpMode::Native => native,
        XdpMode::Generic => !native,
    };
    let Some(attached) = attached.filter(|attached| fits(attached.native)) else {
        unpin(&path)?;
        info!("interface {name}: attaching anew: the interface or the mode that is wanted has changed");
        return Ok(None);
    };
    XdpLink::try_from(link)
        .map_err(|error| anyhow!(chain(&error)))
        .and_then(|link| program.attach_to_link(link).map_err(|error| anyhow!(chain(&error))))
        .with_context(|| format!("interface {name}: cannot replace the program that is attached"))?;
    info!("interface {name}: replaced the program of the agent before");
    Ok(Some(attached.native))
}

fn attach_anew(
    pins: &PinDir,
    program: &mut Xdp,
    interface: &Interface,
    mode: XdpMode,
) -> anyhow::Result<bool> {
    let name = &interface.name;
    let native = match mode {
        XdpMode::Native => {
            link(pins, program, interface, AttachMode::Driver).map_err(|error| match error {
                Refusal::Driver(_) => {
                    anyhow!("interface {name}: {error}: set xdp_mode = \"auto\" to fall back to generic mode")
                }
                _ => anyhow!("interface {name}: {error}"),
            })?;
            true
        }
        XdpMode::Generic => {
            link(pins, program, interface, AttachMode::Skb)
                .map_err(|error| anyhow!("interface {name}: {error}"))?;
            false
        }
        XdpMode::Auto => match link(pins, program, interface, AttachMode::Driver) {
            Ok(()) => true,
            Err(error @ Refusal::Occupied(_)) => bail!("interface {name}: {error}"),
            Err(error) => {
                warn!("interface {name}: {error}: running in generic mode, which is slower, with GRO off");
                link(pins, program, interface, AttachMode::Skb)
                    .map_err(|error| anyhow!("interface {name}: {error}"))?;
                false
            }
        },
    };
    info!("interface {name}: attached in {} mode", if native { "native" } else { "generic" });
    Ok(native)
}

/// Why an interface does not take the program.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("it runs another XDP program: take that one off first: ip link set dev {0} xdp off")]
    Occupied(String),
    #[error("the driver refuses native XDP ({0})")]
    Driver(String),
    #[error("the kernel refuses generic XDP ({0})")]
    Kernel(String),
    #[error("the attachment cannot be pinned ({0})")]
    Pin(String),
}

/// Makes the link and pins it. Without the pin the program would go with the agent.
fn link(pins: &PinDir, program: &mut Xdp, interface: &Interface, mode: AttachMode) -> Result<(), Refusal> {
    let id = program
        .attach_to_if_index(interface.index, mode)
        .map_err(|error| refusal(&error, &interface.name, mode))?;
    let link = program.take_link(id).map_err(|error| Refusal::Pin(chain(&error)))?;
    // A kernel before 5.9 has no links for XDP, and the attachment goes when `link` is dropped.
    let link = FdLink::try_from(link).map_err(|error| Refusal::Pin(chain(&error)))?;
    link.pin(pins.link(&interface.name)).map_err(|error| Refusal::Pin(chain(&error)))?;
    Ok(())
}

fn refusal(error: &ProgramError, interface: &str, mode: AttachMode) -> Refusal {
    let code = match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        ProgramError::XdpError(XdpError::NetlinkError(error)) => error.raw_os_error(),
        _ => None,
    };
    match (code, mode) {
        (Some(libc::EBUSY | libc::EEXIST), _) => Refusal::Occupied(interface.to_owned()),
        (_, AttachMode::Driver) => Refusal::Driver(chain(error)),
        _ => Refusal::Kernel(chain(error)),
    }
}

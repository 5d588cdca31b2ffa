//! Interfaces and addresses of the network namespace that the agent was started in, by rtnetlink.
//!
//! Not by sysfs, which shows the namespace that it was mounted in.

mod neighbour;
mod route;
mod watch;

use std::io;
use std::net::IpAddr;

use anyhow::{Context as _, bail};
use lb_common::Be16;
use lb_common::next_hop::Tag;
pub(crate) use neighbour::Neighbour;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
pub(crate) use route::Way;
pub(crate) use watch::{Changes, Watch};

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Its link-layer address, where it has one as Ethernet does.
    pub(crate) mac: Option<[u8; 6]>,
    /// Whether it is the loopback interface.
    pub(crate) loopback: bool,
    /// Whether it was set up (`IFF_UP`).
    pub(crate) is_up: bool,
    /// Whether it can send: it is up, and what is below it has a carrier (`IFF_LOWER_UP`).
    pub(crate) has_link: bool,
    /// Largest packet that it takes, in bytes.
    pub(crate) mtu: u32,
    /// Receive queues.
    pub(crate) rx_queues: u32,
    /// The interface below a VLAN device, and the tag that the device stands for.
    pub(crate) vlan: Option<(u32, Tag)>,
    /// The XDP program that is attached, if any.
    pub(crate) xdp: Option<AttachedProgram>,
}

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AttachedProgram {
    pub(crate) id: u32,
    /// Run by the driver, not after it.
    pub(crate) native: bool,
}

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostAddress {
    pub(crate) interface: u32,
    pub(crate) address: IpAddr,
    pub(crate) prefix: u8,
}

impl HostAddress {
    /// Whether an address lies in this one's subnet.
    pub(crate) fn covers(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0);
                (u32::from(own) ^ u32::from(other)) & mask == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix.min(128))).unwrap_or(0);
                (u128::from(own) ^ u128::from(other)) & mask == 0
            }
            _ => false,
        }
    }
}

/// Bytes of a message's header.
const HEADER: usize = 16;

/// A connection to the kernel. One request at a time.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the namespace of the calling thread.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let connect = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        Ok(Self { socket: connect().context("cannot open a netlink socket")?, sequence: 0 })
    }

    /// Every interface.
    pub(crate) fn interfaces(&mut self) -> anyhow::Result<Vec<Interface>> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.request(request, NLM_F_DUMP).context("cannot list interfaces")?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(link) => Some(Interface::from(link)),
                _ => None,
            })
            .collect())
    }

    /// Every address.
    pub(crate) fn addresses(&mut self) -> anyhow::Result<Vec<HostAddress>> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.request(request, NLM_F_DUMP).context("cannot list addresses")?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewAddress(address) => host_address(&address),
                _ => None,
            })
            .collect())
    }

    /// Adds an address to an interface; false where it is there already.
    ///
    /// IPv6 without duplicate detection: the other balancers of a pair hold the same address.
    pub(crate) fn add_address(&mut self, address: HostAddress) -> anyhow::Result<bool> {
        let mut message = address_message(address);
        if address.address.is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        match self.request(RouteNetlinkMessage::NewAddress(message), flags) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(error) => bail!("{error}"),
        }
    }

    /// Removes an address from an interface; false where it is not there.
    pub(crate) fn remove_address(&mut self, address: HostAddress) -> anyhow::Result<bool> {
        match self.request(RouteNetlinkMessage::DelAddress(address_message(address)), NLM_F_ACK) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => {
                Ok(false)
            }
            Err(error) => bail!("{error}"),
        }
    }

    /// Sends a request and collects the answers up to the last.
    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.header.length as usize];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            if self.take(&datagram, &mut answers)? {
                return Ok(answers);
            }
        }
    }

    /// Takes the messages of one datagram; true after the last one of the answer.
    fn take(&self, datagram: &[u8], answers: &mut Vec<RouteNetlinkMessage>) -> io::Result<bool> {
        for message in messages(datagram) {
            let message = message?;
            if message.header.sequence_number != self.sequence {
                continue;
            }
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(true),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                _ => {}
            }
        }
        Ok(false)
    }
}

/// The messages of one datagram.
fn messages(datagram: &[u8]) -> impl Iterator<Item = io::Result<NetlinkMessage<RouteNetlinkMessage>>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.len() < HEADER {
            return None;
        }
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other);
        let length = message.as_ref().map_or(rest.len(), |message| message.header.length as usize);
        rest = rest.get(length.next_multiple_of(4).max(HEADER)..).unwrap_or_default();
        Some(message)
    })
}

impl From<LinkMessage> for Interface {
    fn from(link: LinkMessage) -> Self {
        let mut interface = Self {
            index: link.header.index,
            loopback: link.header.flags.contains(LinkFlags::Loopback),
            is_up: link.header.flags.contains(LinkFlags::Up),
            has_link: link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
            ..Self::default()
        };
        let (mut lower, mut tag, mut elsewhere) = (None, None, false);
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::IfName(name) => interface.name = name,
                LinkAttribute::Address(mac) => interface.mac = mac.try_into().ok(),
                LinkAttribute::Mtu(mtu) => interface.mtu = mtu,
                LinkAttribute::NumRxQueues(queues) => interface.rx_queues = queues,
                LinkAttribute::Link(index) => lower = Some(index),
                // The interface below is in another namespace, and its index means nothing here.
                LinkAttribute::LinkNetNsId(_) => elsewhere = true,
                LinkAttribute::LinkInfo(infos) => tag = infos.iter().find_map(vlan_tag),
                LinkAttribute::Xdp(xdp) => interface.xdp = attached(&xdp),
                _ => {}
            }
        }
        interface.vlan = lower.zip(tag).filter(|_| !elsewhere);
        interface
    }
}

fn vlan_tag(info: &LinkInfo) -> Option<Tag> {
    let LinkInfo::Data(InfoData::Vlan(vlan)) = info else { return None };
    let mut tag = Tag { protocol: Be16::new(0x8100), control: Be16::new(0) };
    for attribute in vlan {
        match attribute {
            InfoVlan::Id(id) => tag.control = Be16::new(*id),
            InfoVlan::Protocol(protocol) => tag.protocol = Be16::new(u16::from(*protocol)),
            _ => {}
        }
    }
    Some(tag)
}

fn attached(xdp: &[LinkXdp]) -> Option<AttachedProgram> {
    let id = xdp.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) => Some(*id),
        _ => None,
    })?;
    let generic = xdp.contains(&LinkXdp::Attached(XdpAttached::SocketBuffer));
    Some(AttachedProgram { id, native: !generic })
}

fn host_address(message: &AddressMessage) -> Option<HostAddress> {
    // On a point-to-point interface IFA_ADDRESS is the peer's; IFA_LOCAL, where there is one, is ours.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    Some(HostAddress {
        interface: message.header.index,
        address: local.or(address)?,
        prefix: message.header.prefix_len,
    })
}

fn address_message(address: HostAddress) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = match address.address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.prefix_len = address.prefix;
    message.header.index = address.interface;
    message.header.scope = AddressScope::Universe;
    message.attributes =
        vec![AddressAttribute::Local(address.address), AddressAttribute::Address(address.address)];
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_covers_its_addresses_and_no_other() {
        let subnet =
            |text: &str, prefix| HostAddress { interface: 1, address: text.parse().unwrap(), prefix };
        let covers = |net: HostAddress, text: &str| net.covers(text.parse().unwrap());
        assert!(covers(subnet("10.0.0.1", 24), "10.0.0.100"));
        assert!(!covers(subnet("10.0.0.1", 24), "10.0.1.100"));
        assert!(!covers(subnet("10.0.0.1", 32), "10.0.0.2"));
        assert!(covers(subnet("10.0.0.1", 0), "192.0.2.1"));
        assert!(covers(subnet("fd00::1", 64), "fd00::100"));
        assert!(!covers(subnet("fd00::1", 64), "fd00:0:0:1::100"));
        assert!(!covers(subnet("fd00::1", 0), "10.0.0.1"));
    }

    /// The loopback interface is there in every namespace, and reading needs no privileges.
    #[test]
    fn the_kernel_answers() {
        let mut netlink = Netlink::open().unwrap();
        let interfaces = netlink.interfaces().unwrap();
        let loopback = interfaces.iter().find(|interface| interface.name == "lo").unwrap();
        assert!(loopback.loopback && loopback.vlan.is_none());
        let addresses = netlink.addresses().unwrap();
        assert!(addresses.iter().all(|address| interfaces.iter().any(|i| i.index == address.interface)));
    }
}

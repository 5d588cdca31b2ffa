//! What goes wrong after the verdict: counted from the kernel's XDP tracepoints, through programs of our own.

use std::mem::offset_of;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, HashMap, Map, MapData, MapInfo};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::loaded_programs;
use lb_common::maps;
use lb_common::settings::{REDIRECT_BACK, Settings as Row};
use lb_tests::address::Family;
use lb_tests::agent::{Agent, Settings};
use lb_tests::setup::{Setup, echo, echo_vip};
use lb_tests::topology::Shape;
use lb_tests::udp_client::UdpClient;
use lb_tests::{needs_root, wait, xdp_pass};

use crate::traffic::SOON;

/// Datagrams of each family, of which every one meets what a test has prepared.
const DATAGRAMS: u64 = 5;

const EVENTS: [&str; 3] = ["redirect_failed", "transmit_failed", "program_exception"];

/// A lab whose only services are UDP echoes on one backend, so that nothing is counted but what a test sends.
fn setup(shape: Shape) -> Setup {
    let setup = Setup::bare(shape, 1, Settings::default()).unwrap();
    for family in Family::BOTH {
        setup.add_service(&echo(family), echo_vip(family), "udp", "none").unwrap();
        setup.agent.must(["backend", "add", &echo(family), &setup.udp(0, family)]).unwrap();
    }
    setup
}

/// A client of each service that has had an answer: its flow and the next hops are known.
fn acquainted(setup: &Setup) -> [UdpClient; 2] {
    let clients = Family::BOTH.map(|family| {
        setup.lab.client.run(|| {
            let mut client = UdpClient::connect(echo_vip(family), SOON).unwrap();
            client.ask(64).unwrap();
            client
        })
    });
    assert_eq!(
        EVENTS.map(|event| setup.agent.counter(event).unwrap()),
        [0, 0, 0],
        "nothing has gone wrong yet"
    );
    clients
}

/// Sends datagrams that the program forwards, and waits until `event` has counted each of them and no other has any.
fn expect_each_counted_as(event: &str, setup: &Setup, clients: &[UdpClient], payload: &[u8]) {
    let forwarded = || setup.agent.counter("request_forwarded").unwrap();
    let mut expected = 0;
    for client in clients {
        let before = forwarded();
        (0..DATAGRAMS).for_each(|_| client.send(payload).unwrap());
        let what = format!("each datagram to {} is forwarded", client.target().unwrap());
        wait::until_true(SOON, &what, || forwarded() == before + DATAGRAMS).unwrap();
        expected += DATAGRAMS;
        expect_counted_as(event, &setup.agent, expected);
    }
}

fn expect_counted_as(event: &str, agent: &Agent, expected: u64) {
    let what = format!("{event} has counted each datagram");
    wait::until_true(SOON, &what, || agent.counter(event).unwrap() == expected).unwrap();
    for other in EVENTS.into_iter().filter(|other| *other != event) {
        assert_eq!(agent.counter(other).unwrap(), 0, "{other}");
    }
}

#[test]
fn a_redirect_that_the_kernel_refuses_is_counted() {
    needs_root!();
    let mut setup = setup(Shape::TwoArmed);
    let clients = acquainted(&setup);
    setup.lab.refuse_xdp_frames().unwrap();
    expect_each_counted_as("redirect_failed", &setup, &clients, b"refused");

    // The tracepoint programs stay when the agent is gone, as the balancing does.
    setup.agent.kill().unwrap();
    (0..DATAGRAMS).for_each(|_| clients[0].send(b"refused").unwrap());
    setup.agent.run().unwrap();
    expect_counted_as("redirect_failed", &setup.agent, 3 * DATAGRAMS);
}

#[test]
fn a_redirected_frame_that_the_driver_drops_is_counted() {
    needs_root!();
    let setup = setup(Shape::TwoArmed);
    let clients = acquainted(&setup);
    setup.lab.narrow_facing_end(1280).unwrap();
    expect_each_counted_as("redirect_failed", &setup, &clients, &[0; 1400]);
}

#[test]
fn a_transmission_that_the_driver_drops_is_counted() {
    needs_root!();
    let mut setup = setup(Shape::OneArmed);
    let clients = acquainted(&setup);
    // On veth the agent has the program redirect instead; this is how it treats any other driver.
    clear_redirect_back(&setup.agent).unwrap();
    setup.lab.refuse_xdp_frames().unwrap();
    expect_each_counted_as("transmit_failed", &setup, &clients, b"dropped");
}

/// No program of ours returns an action that a driver of this machine lacks. So one that does so for everything runs
/// beside it, and is entered among the watched programs as the agent enters its own.
#[test]
fn an_action_that_the_driver_lacks_is_counted() {
    needs_root!();
    const NO_ACTION: i32 = 42;
    let setup = setup(Shape::TwoArmed);
    let backend = &setup.lab.backends[0].namespace;
    // The kernel's own packets, such as neighbour discovery of a new interface, would be counted too.
    backend.sysctl("net.ipv6.conf.default.disable_ipv6", "1").unwrap();
    backend
        .ip("link add probe type veth peer name target\n\
             addr add 192.0.2.1/24 dev probe\n\
             link set probe up\nlink set target up\n\
             neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev probe nud permanent")
        .unwrap();
    let _link = xdp_pass::attach_returning(NO_ACTION, backend, "target").unwrap();
    let send = || {
        backend.run(|| {
            let socket = UdpClient::connect("192.0.2.2:9".parse().unwrap(), SOON).unwrap();
            for _ in 0..DATAGRAMS {
                socket.send(b"no such action").unwrap();
            }
        });
    };
    send();
    watch(&setup.agent, backend.xdp_program("target").unwrap().unwrap()).unwrap();
    assert_eq!(setup.agent.counter("program_exception").unwrap(), 0, "of a program that is not watched");
    send();
    expect_counted_as("program_exception", &setup.agent, DATAGRAMS);
}

/// Has the program answer `XDP_TX` instead of a redirect to the interface that a frame came in by.
fn clear_redirect_back(agent: &Agent) -> Result<()> {
    let map = MapData::from_pin(agent.pin_dir().join(maps::SETTINGS))?;
    let mut settings: Array<MapData, [u8; size_of::<Row>()]> = Map::from_map_data(map)?.try_into()?;
    let mut row = settings.get(&0, 0)?;
    let flags = &mut row[offset_of!(Row, flags)..][..8];
    ensure!(flags == REDIRECT_BACK.to_ne_bytes(), "on veth the agent sets REDIRECT_BACK");
    flags.fill(0);
    Ok(settings.set(0, row, 0)?)
}

/// Enters a program among those whose exceptions are counted. The map has no pin: the tracepoint programs hold it.
fn watch(agent: &Agent, program: u32) -> Result<()> {
    let tracer = linked_program(&agent.pin_dir().join("program-1/xdp_exception"))?;
    let tracer = loaded_programs()
        .find_map(|info| info.ok().filter(|info| info.id() == tracer))
        .context("the program on the tracepoint")?;
    for id in tracer.map_ids()?.context("a program with maps")? {
        if MapInfo::from_id(id)?.name_as_str() == Some(maps::WATCHED) {
            let map = Map::from_map_data(MapData::from_id(id)?)?;
            let mut watched: HashMap<MapData, u64, u32> = map.try_into()?;
            return Ok(watched.insert(u64::from(program), 1, 0)?);
        }
    }
    anyhow::bail!("the program on the tracepoint does not use {}", maps::WATCHED)
}

/// The program that a pinned link attaches.
fn linked_program(pin: &Path) -> Result<u32> {
    let link = PinnedLink::from_pin(pin).with_context(|| pin.display().to_string())?;
    Ok(FdLink::from(link).info()?.program_id())
}

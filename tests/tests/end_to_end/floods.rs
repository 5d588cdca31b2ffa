//! Prefix lists and limits of new flows: set, changed and taken off while clients come.

use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Map, MapData};
use lb_common::maps;
use lb_common::prefix::PrefixKey;
use lb_tests::address::{CLIENT_V4, CLIENT_V6, Family};
use lb_tests::http_client::{HttpClient, reason};
use lb_tests::process;
use lb_tests::setup::{Setup, echo, echo_vip, web, web_vip};
use lb_tests::topology::Shape;
use lb_tests::{needs_program, needs_root, wait};

use crate::traffic::{SOON, assert_no_checksum_errors};

/// Less than a SYN's first retransmission takes: whoever is refused has sent one.
const ONE_SYN: Duration = Duration::from_millis(900);

/// The longest tick of a kernel's clock, which a limit allows on top of its burst.
const TICK: Duration = Duration::from_millis(10);

/// Flows of a burst, of which a limit lets some in.
const FLOWS: u64 = 60;

/// The next client port of a datagram: each is used once.
static PORTS: AtomicU16 = AtomicU16::new(10_000);

fn client(family: Family) -> IpAddr {
    match family {
        Family::V4 => CLIENT_V4.into(),
        Family::V6 => CLIENT_V6.into(),
    }
}

/// A network that the client is in.
fn network(family: Family) -> &'static str {
    match family {
        Family::V4 => "10.0.0.0/24",
        Family::V6 => "fd00:a::/64",
    }
}

fn set(setup: &Setup, service: &str, options: &[&str]) {
    setup.agent.must(["service", "set", service].iter().chain(options)).unwrap();
}

/// curl to the `web` service of a family: what it printed, or its exit status.
fn curl(setup: &Setup, family: Family) -> Result<String, Option<i32>> {
    let mut command = setup.lab.client.command("curl");
    let url = format!("http://{}/", web_vip(family));
    command.args(["--silent", "--fail", "--max-time", "1", &url]);
    let output = process::run(command, SOON).unwrap();
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(output.status.code())
    }
}

/// What curl says of a server that does not answer.
const TIMED_OUT: Result<String, Option<i32>> = Err(Some(28));

fn counted(setup: &Setup, name: &str) -> u64 {
    setup.agent.counter(name).unwrap()
}

/// How many prefixes the kernel's trie has.
fn prefixes(setup: &Setup) -> usize {
    let map = MapData::from_pin(setup.agent.pin_dir().join(maps::PREFIXES)).unwrap();
    let trie: LpmTrie<MapData, PrefixKey, u32> = Map::from_map_data(map).unwrap().try_into().unwrap();
    trie.keys().map(Result::unwrap).count()
}

#[test]
fn a_deny_list_cuts_a_client_off_and_lets_it_in_again() {
    needs_root!();
    needs_program!("curl");
    let setup = Setup::serving(Shape::TwoArmed, 2).unwrap();
    for family in Family::BOTH {
        let service = web(family);
        let connect = || HttpClient::connect(web_vip(family), Duration::from_secs(2));
        let mut held = setup.lab.client.run(|| connect().unwrap());
        let backend = held.get().unwrap();
        assert!(curl(&setup, family).is_ok());
        let before = counted(&setup, "drop_denied");

        set(&setup, &service, &["--deny", network(family)]);
        assert_eq!(prefixes(&setup), 1);
        assert_eq!(curl(&setup, family), TIMED_OUT, "{family:?}");
        let denied = counted(&setup, "drop_denied");
        assert!(denied > before, "{family:?}: {denied}");
        assert_eq!(
            reason(&held.get().unwrap_err()),
            "timed out",
            "{family:?}: an open connection is cut off too"
        );
        assert!(counted(&setup, "drop_denied") > denied);
        // The service of the other protocol has no list.
        setup.lab.client.run(|| {
            lb_tests::udp_client::UdpClient::connect(echo_vip(family), SOON).unwrap().ask(64).unwrap()
        });

        // The longer prefix decides.
        set(&setup, &service, &["--allow", &client(family).to_string()]);
        assert_eq!(prefixes(&setup), 2);
        assert!(curl(&setup, family).is_ok(), "{family:?}");
        set(&setup, &service, &["--unlist", &client(family).to_string()]);
        assert_eq!(curl(&setup, family), TIMED_OUT, "{family:?}");

        set(&setup, &service, &["--unlist", network(family)]);
        assert_eq!(prefixes(&setup), 0);
        assert!(curl(&setup, family).is_ok(), "{family:?}");
        // What the client has retransmitted is answered in the end.
        wait::until_true(SOON, "the connection goes on", || held.get().is_ok_and(|name| name == backend))
            .unwrap();
    }
    assert_no_checksum_errors(&setup);
}

#[test]
fn an_allow_list_shuts_out_everybody_else_also_while_the_agent_is_away() {
    needs_root!();
    needs_program!("curl");
    let mut setup = Setup::serving(Shape::OneArmed, 2).unwrap();
    for (family, elsewhere) in [(Family::V4, "192.0.2.0/24"), (Family::V6, "2001:db8::/32")] {
        set(&setup, &web(family), &["--allow", elsewhere]);
        assert_eq!(curl(&setup, family), TIMED_OUT, "{family:?}");
        set(&setup, &web(family), &["--allow", network(family)]);
        assert!(curl(&setup, family).is_ok(), "{family:?}");
        set(&setup, &web(family), &["--unlist", network(family)]);
    }
    setup.agent.kill().unwrap();
    for family in Family::BOTH {
        assert_eq!(curl(&setup, family), TIMED_OUT, "{family:?}");
    }
    setup.agent.run().unwrap();
    // The next agent knows the lists of the one before, and takes them off.
    assert_eq!(prefixes(&setup), 2);
    for (family, elsewhere) in [(Family::V4, "192.0.2.0/24"), (Family::V6, "2001:db8::/32")] {
        assert_eq!(curl(&setup, family), TIMED_OUT, "{family:?}");
        set(&setup, &web(family), &["--unlist", elsewhere]);
        assert!(curl(&setup, family).is_ok(), "{family:?}");
    }
    assert_eq!(prefixes(&setup), 0);
}

/// Opens [`FLOWS`] UDP flows from an address at once; returns how many were let in: those have had an answer each, and the
/// others are counted as `refused`.
fn datagrams(setup: &Setup, family: Family, source: IpAddr, refused: &str) -> u64 {
    let counts = || [counted(setup, "flow_created"), counted(setup, refused)];
    let before = counts();
    let sockets: Vec<UdpSocket> = setup.lab.client.run(|| {
        let open = |_| {
            // A port that the kernel chose might have a flow already, which is not a new one.
            let port = PORTS.fetch_add(1, Ordering::Relaxed);
            let socket = UdpSocket::bind((source, port)).unwrap();
            socket.connect(echo_vip(family)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket.send(b"first and only").unwrap();
            socket
        };
        (0..FLOWS).map(open).collect()
    });
    let since = || counts().into_iter().zip(before).map(|(now, before)| now - before);
    wait::until_true(SOON, "each datagram is counted", || since().sum::<u64>() == FLOWS).unwrap();
    let admitted = since().next().unwrap();
    let mut answers = 0;
    wait::until_true(SOON, "each that was let in is answered", || {
        answers += sockets.iter().filter(|socket| socket.recv(&mut [0; 64]).is_ok()).count() as u64;
        answers == admitted
    })
    .unwrap();
    admitted
}

/// Opens [`FLOWS`] connections at once; returns how many were let in: those have a flow each, and the others are counted as
/// `refused`, by each of their SYNs.
fn connections(setup: &Setup, family: Family, refused: &str) -> u64 {
    let counts = || [counted(setup, "flow_created"), counted(setup, refused)];
    let before = counts();
    let connect = || HttpClient::connect(web_vip(family), ONE_SYN).and_then(HttpClient::get_and_close);
    let outcomes: Vec<_> = setup.lab.client.run(|| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..FLOWS).map(|_| scope.spawn(connect)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    });
    let failures: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err().map(reason)).collect();
    assert!(failures.iter().all(|failure| failure == "timed out"), "{failures:?}");
    let [created, dropped] = counts();
    let [admitted, dropped] = [created - before[0], dropped - before[1]];
    let answered = FLOWS - failures.len() as u64;
    assert!(answered <= admitted, "{answered} are answered, {admitted} have a flow");
    assert!(admitted + dropped >= FLOWS, "{admitted} have a flow, {dropped} were refused");
    admitted
}

/// At least a burst was let in, and no more than that and what one flow a second makes of the time since.
fn assert_cut_to(burst: u64, admitted: u64, since: Instant) {
    let most = burst + (since.elapsed() + TICK).as_secs();
    assert!((burst..=most).contains(&admitted), "{admitted} were let in instead of {burst} to {most}");
}

#[test]
fn a_service_s_limit_lets_a_burst_in_and_changes_live() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 2).unwrap();
    for family in Family::BOTH {
        let udp = || datagrams(&setup, family, client(family), "drop_service_limit");
        let tcp = || connections(&setup, family, "drop_service_limit");
        assert_eq!([udp(), tcp()], [FLOWS; 2], "{family:?}: no limit, nothing refused");
        // A lowered limit holds at once: what was let in above it does not count against it.
        for burst in [20, 5] {
            let limit = format!("1/s,burst={burst}");
            for (service, flood) in [(echo(family), &udp as &dyn Fn() -> u64), (web(family), &tcp)] {
                let since = Instant::now();
                set(&setup, &service, &["--limit-new-flows", &limit]);
                assert_cut_to(burst, flood(), since);
            }
        }
        for service in [echo(family), web(family)] {
            set(&setup, &service, &["--limit-new-flows", "none"]);
        }
        assert_eq!([udp(), tcp()], [FLOWS; 2], "{family:?}: the limit is off again");
    }
    assert_no_checksum_errors(&setup);
}

#[test]
fn a_source_s_limit_is_each_source_s_own_and_an_open_connection_does_not_feel_it() {
    needs_root!();
    let setup = Setup::serving(Shape::OneArmed, 2).unwrap();
    let others =
        [(Family::V4, ["10.0.0.21", "10.0.0.22"], 24), (Family::V6, ["fd00:a::21", "fd00:a::22"], 64)];
    for (family, others, length) in others {
        for address in others {
            setup.lab.client.ip(&format!("addr add {address}/{length} dev eth0 nodad")).unwrap();
        }
        let sources = [client(family), others[0].parse().unwrap(), others[1].parse().unwrap()];
        let mut held = setup.lab.client.run(|| HttpClient::connect(web_vip(family), SOON).unwrap());
        let longest = if family == Family::V4 { 32 } else { 128 };
        let limit = format!("1/s,burst=5,prefix={longest}");
        let flood = |source| datagrams(&setup, family, source, "drop_source_limit");

        let since = Instant::now();
        set(&setup, &echo(family), &["--limit-source", &limit]);
        set(&setup, &web(family), &["--limit-source", &limit]);
        sources.iter().for_each(|source| assert_cut_to(5, flood(*source), since));
        assert_cut_to(5, connections(&setup, family, "drop_source_limit"), since);
        (0..100).for_each(|_| assert!(held.get().is_ok(), "{family:?}: it has its flow"));

        // Told apart by their network alone, the three are one.
        let since = Instant::now();
        set(&setup, &echo(family), &["--limit-source", &format!("1/s,burst=30,prefix={length}")]);
        assert_cut_to(30, sources.iter().map(|source| flood(*source)).sum(), since);

        set(&setup, &echo(family), &["--limit-source", "none"]);
        set(&setup, &web(family), &["--limit-source", "none"]);
        sources
            .iter()
            .for_each(|source| assert_eq!(flood(*source), FLOWS, "{family:?}: the limit is off again"));
        assert_eq!(connections(&setup, family, "drop_source_limit"), FLOWS);
    }
    assert_no_checksum_errors(&setup);
}

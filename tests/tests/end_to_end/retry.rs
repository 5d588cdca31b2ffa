//! A backend that refuses or does not answer, and clients that do not notice, though nothing checks it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lb_tests::address::Family;
use lb_tests::http_client::HttpClient;
use lb_tests::needs_root;
use lb_tests::server::Server;
use lb_tests::setup::{Setup, web, web_vip};
use lb_tests::topology::Shape;

use crate::traffic::SOON;

/// The client's second SYN comes after a second (RFC 6298 section 2); what else it takes is a tenth.
const ONE_RETRANSMISSION: Duration = Duration::from_millis(1100);

/// Who answers 60 new connections, and how long the slowest took to be.
fn answers(setup: &Setup, family: Family) -> std::io::Result<(BTreeSet<String>, Duration)> {
    let mut slowest = Duration::ZERO;
    let ask = |_| {
        setup.lab.client.run(|| {
            let since = Instant::now();
            let client = HttpClient::connect(web_vip(family), SOON)?;
            slowest = slowest.max(since.elapsed());
            client.get_and_close()
        })
    };
    let who = (0..60).map(ask).collect::<Result<_, _>>()?;
    Ok((who, slowest))
}

#[test]
fn clients_notice_neither_a_backend_that_refuses_nor_one_that_is_silent() {
    needs_root!();
    let mut setup = Setup::serving(Shape::TwoArmed, 3).unwrap();
    for family in Family::BOTH {
        setup.agent.must(["service", "set", &web(family), "--retry", "on", "--health", "none"]).unwrap();
        assert_eq!(answers(&setup, family).unwrap().0.len(), 3, "{family:?}");
    }

    setup.servers[1].iter_mut().for_each(Server::kill);
    for family in Family::BOTH {
        let (who, slowest) = answers(&setup, family).unwrap();
        assert!(who.len() == 2 && !who.contains("b2"), "{family:?}: {who:?}");
        assert!(slowest < ONE_RETRANSMISSION, "{family:?}: {slowest:?}");
    }
    assert!(setup.agent.counter("request_retried").unwrap() > 0);
    assert!(setup.agent.counter("suspect_avoided").unwrap() > 0);

    setup.lab.unplug(&setup.lab.backends[0]).unwrap();
    for family in Family::BOTH {
        let (who, slowest) = answers(&setup, family).unwrap();
        assert!(who.len() == 1 && who.contains("b3"), "{family:?}: {who:?}");
        // Of two backends that are unfit, a connection may try the silent one, and then the one that refuses.
        assert!(slowest < ONE_RETRANSMISSION, "{family:?}: {slowest:?}");
    }
    setup.lab.replug(&setup.lab.backends[0]).unwrap();
}

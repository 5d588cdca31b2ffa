//! Ten thousand changes by eight clients at once, API and command line, under traffic.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lb_tests::address::Family;
use lb_tests::agent::Settings;
use lb_tests::live::LiveRows;
use lb_tests::random::Random;
use lb_tests::setup::Setup;
use lb_tests::topology::Shape;
use lb_tests::{api, needs_root};
use serde_json::{Value, json};

use crate::traffic::Traffic;

const CLIENTS: usize = 8;
const OPERATIONS: usize = 10_000;
/// Of which so many go by the command line, a process each.
const BY_COMMAND_LINE: usize = 20;
const SERVICES: usize = 12;
const BACKENDS: usize = 6;
const STRATEGIES: [&str; 6] =
    ["maglev", "consistent-hash", "source-hash", "round-robin", "random", "least-connections"];

/// A change of something that may or may not be there.
struct Operation {
    method: &'static str,
    path: String,
    body: Value,
    command: Vec<String>,
}

fn any_operation(random: &mut Random) -> Operation {
    let number = random.below(SERVICES);
    let family = Family::BOTH[number % 2];
    let (name, strategy) = (format!("s{number}"), random.pick(&STRATEGIES));
    let vip = std::net::SocketAddr::new(family.vip(), 2000 + number as u16).to_string();
    let host = 100 + random.below(BACKENDS);
    let backend = match family {
        Family::V4 => format!("10.0.1.{host}:80"),
        Family::V6 => format!("[fd00:b::{host}]:80"),
    };
    let weight = random.below(20).to_string();
    let service = format!("/v1/services/{name}");
    let backends = format!("{service}/backends");
    let of_backend = format!("{backends}/{backend}");
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let operation =
        |method, path: &str, body, command| Operation { method, path: path.to_owned(), body, command };
    match random.below(8) {
        0 => operation(
            "POST",
            "/v1/services",
            json!({"name": name, "vip": vip, "strategy": strategy, "health": {"type": "none"}}),
            words(&["service", "add", &name, "--vip", &vip, "--strategy", strategy, "--health", "none"]),
        ),
        1 => operation("DELETE", &service, Value::Null, words(&["service", "remove", &name])),
        2 | 3 => operation(
            "PATCH",
            &service,
            json!({"strategy": strategy}),
            words(&["service", "set", &name, "--strategy", strategy]),
        ),
        4 | 5 => operation(
            "POST",
            &backends,
            json!({"address": backend, "weight": weight.parse::<u32>().unwrap()}),
            words(&["backend", "add", &name, &backend, "--weight", &weight]),
        ),
        6 => operation(
            "PATCH",
            &of_backend,
            json!({"weight": weight.parse::<u32>().unwrap()}),
            words(&["backend", "set", &name, &backend, "--weight", &weight]),
        ),
        _ => operation(
            "DELETE",
            &format!("{of_backend}?force=true"),
            Value::Null,
            words(&["backend", "remove", &name, &backend, "--force"]),
        ),
    }
}

/// What a client did: how long each change took that was made, and how many were refused.
#[derive(Default)]
struct Log {
    changed: Vec<Duration>,
    refused: usize,
}

fn client(setup: &Setup, seed: u64) -> Log {
    let (mut random, socket, mut log) = (Random::new(seed), setup.agent.socket(), Log::default());
    for _ in 0..OPERATIONS / CLIENTS {
        let Operation { method, path, body, command } = any_operation(&mut random);
        if random.below(BY_COMMAND_LINE) == 0 {
            let reply = setup.agent.cli(&command).unwrap();
            assert!([0, 1].contains(&reply.status), "{command:?}: {reply:?}");
            continue;
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let begun = Instant::now();
        // An answer that does not come in time is an error here: so a deadlock ends the test.
        let status = api::request(&socket, method, &path, &body).unwrap();
        match status {
            200..300 => log.changed.push(begun.elapsed()),
            404 | 409 | 422 => log.refused += 1,
            _ => panic!("seed {seed}: {method} {path} {body}: {status}"),
        }
    }
    log
}

/// The median time that the file system takes to make a small file durable, thirty times over.
fn sync_time(setup: &Setup) -> Duration {
    let path = setup.agent.directory().join("sync");
    let mut times: Vec<_> = (0..30)
        .map(|_| {
            let begun = Instant::now();
            std::fs::write(&path, [0; 4096]).unwrap();
            std::fs::File::open(&path).unwrap().sync_all().unwrap();
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn ten_thousand_changes_by_eight_clients_end_in_what_is_desired() {
    needs_root!();
    let setup = Setup::serving_with(Shape::TwoArmed, 2, Settings::default()).unwrap();
    let (rows, done) = (LiveRows::open(setup.agent.pin_dir()).unwrap(), AtomicBool::new(false));
    let sync = sync_time(&setup);
    let traffic = Traffic::start(&setup);
    let (setup, done) = (&setup, &done);
    let (logs, (rows, looks)) = std::thread::scope(|scope| {
        let checker = scope.spawn(move || {
            // Of this thread alone: what it takes from the others would count as the agent's time.
            rustix::process::nice(19).unwrap();
            let mut looks = 0_u64;
            while !done.load(Ordering::Relaxed) {
                if let Some(contradiction) = rows.contradiction() {
                    return (rows, Err(contradiction));
                }
                looks += 1;
            }
            (rows, Ok(looks))
        });
        let clients: Vec<_> =
            (1..=CLIENTS as u64).map(|seed| scope.spawn(move || client(setup, seed))).collect();
        let logs: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        done.store(true, Ordering::Relaxed);
        (logs, checker.join().unwrap())
    });
    let looks = looks.unwrap();
    let logs: Vec<Log> = logs.into_iter().map(|log| log.unwrap()).collect();
    let refused: usize = logs.iter().map(|log| log.refused).sum();
    let mut times: Vec<_> = logs.into_iter().flat_map(|log| log.changed).collect();
    times.sort_unstable();
    assert!(times.len() > OPERATIONS / 10, "only {} changes were made", times.len());
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    println!(
        "{} changes made, {refused} refused, tables looked at {looks} times; request to answer with {CLIENTS} at once: \
         median {:?}, p99 {:?}, longest {:?}; a synchronised write takes {sync:?} here",
        times.len(),
        at(50),
        at(99),
        at(100),
    );

    traffic.assert_undisturbed();
    // What is desired is what the data plane has: nothing is left to do, and there is nothing else.
    let state = setup.agent.directory().join("desired.toml");
    std::fs::write(&state, setup.agent.must(["export"]).unwrap()).unwrap();
    let plan = setup.agent.json(["apply", "-f", state.to_str().unwrap(), "--prune", "--dry-run"]).unwrap();
    assert_eq!((&plan["changes"], &plan["steps"]), (&json!([]), &json!([])), "{plan}");
    let listed = |verb: &str| setup.agent.json([verb, "list"]).unwrap().as_array().unwrap().len();
    assert_eq!(rows.in_use(), (listed("service"), listed("backend")));
}

//! What is drawn on a screen of 80 columns and 24 lines.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

use super::app::{App, Next};
use super::feed::{Data, Message};
use super::view;
use crate::control::Condition;
use crate::events::{Event, Happening};
use crate::health::Health;
use crate::model::Timestamp;

fn service(name: &str, active: u64) -> Value {
    json!({
        "name": name, "vip": "10.0.0.100:80", "protocol": "tcp", "strategy": "maglev", "mode": "dnat", "track": "full",
        "on_no_backend": "reset", "on_backend_down": "rebalance", "retry": "off", "affinity": "off", "health": "none", "backends": 4,
        "healthy_backends": 3, "revision": 3, "active_backends": 3, "active_connections": active,
        "connections_total": 1000, "connections_per_second": 123.4, "rx_packets_per_second": 1000.0,
        "tx_packets_per_second": 500.0, "rx_bytes_per_second": 1_234_000.0, "tx_bytes_per_second": 56_700_000.0,
    })
}

fn backend(host: u8, changes: Value) -> Value {
    let mut backend = json!({
        "service": "web", "address": format!("10.0.1.{host}:8080"), "weight": 1, "effective_weight": 1, "load": null,
        "admin": "enabled", "health": "healthy", "check": {"passed": true, "took_microseconds": 300, "reason": null},
        "condition": "ok", "condition_reason": null, "removing": false, "active_connections": 10,
        "connections_total": 500, "rx_packets_total": 0, "tx_packets_total": 0, "rx_bytes_total": 0,
        "tx_bytes_total": 0, "connections_per_second": 40.0, "rx_packets_per_second": 300.0,
        "tx_packets_per_second": 200.0, "rx_bytes_per_second": 4000.0, "tx_bytes_per_second": 9000.0,
        "connect_time": null, "connections_stay_microseconds": null,
    });
    let object = backend.as_object_mut().unwrap();
    object.extend(changes.as_object().unwrap().clone());
    backend
}

/// One backend is slow, one refuses, one drains, and one is as it should be.
fn data() -> Data {
    let status = json!({
        "version": "0.1.0", "revision": 17, "in_step": true, "uptime_seconds": 3720, "services": 2, "backends": 5,
        "http": {"requests_total": 0, "refused_no_token_total": 0, "refused_wrong_token_total": 0, "refused_read_only_total": 0},
        "interfaces": [{"name": "eth0", "mode": "native", "problem": null}],
        "flows": {"active": 250, "capacity": 1_000_000, "sweep_cpu_microseconds": 5},
        "service_rates": [service("api", 7), service("web", 250)], "attention": [], "reasons": [], "events": [],
    });
    let refused = "tcp connect to 10.0.1.12:8080: Connection refused (os error 111)";
    let backends = json!([
        backend(
            11,
            json!({"condition": "slow", "condition_reason": "its check takes 50 ms, those of the others 0.3 ms",
            "check": {"passed": true, "took_microseconds": 50_000, "reason": null}})
        ),
        backend(
            12,
            json!({"condition": "down", "condition_reason": refused, "health": "unhealthy",
            "effective_weight": 0, "connections_per_second": 0.0, "active_connections": 0,
            "check": {"passed": false, "took_microseconds": 200, "reason": refused}})
        ),
        backend(
            13,
            json!({"condition": "draining", "condition_reason": "10 connections left", "admin": "draining",
            "effective_weight": 0, "connections_per_second": 0.0})
        ),
        backend(14, json!({})),
        backend(9, json!({"service": "api"})),
    ]);
    let (status, backends) = (serde_json::from_value(status), serde_json::from_value(backends));
    Data { status: status.unwrap(), backends: backends.unwrap() }
}

fn app() -> App {
    let mut app = App::new(None, false);
    app.take(Message::Data(Ok(data())));
    let what =
        Happening::StateChanged { revision: 17, changes: vec!["drain 10.0.1.13:8080 of web".to_owned()] };
    app.take(Message::Event(Event { id: 1, time: Timestamp::default(), what }));
    app
}

fn screen(app: &App, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view::draw(app, frame)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let line = |row: u16| (0..width).map(|column| buffer[(column, row)].symbol()).collect::<String>();
    (0..height).map(|row| line(row).trim_end().to_owned() + "\n").collect()
}

fn press(app: &mut App, code: KeyCode) -> Next {
    app.take(Message::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

fn type_in(app: &mut App, text: &str) {
    for character in text.chars() {
        assert_eq!(press(app, KeyCode::Char(character)), Next::Draw);
    }
}

const SERVICES: &str = "\
lb-agent 0.1.0  up 1h 2m  eth0 native  revision 17  flows 250 of 1.00M
services 2  backends 2/5 ok  active 257  new 247/s  in 2.47MB/s  out 113MB/s
 services, by state ────────────────────────────────────────────────────────────
SERVICE      VIP                 STATE            OK ACTIVE NEW/S IN B/S OUT B/S
web          10.0.0.100:80/tcp   down            3/4    250   123  1.23M   56.7M
api          10.0.0.100:80/tcp   ok              3/4      7   123  1.23M   56.7M







 not in order ──────────────────────────────────────────────────────────────────
down        web 10.0.1.12:8080  tcp connect to 10.0.1.12:8080: Connection refuse
slow        web 10.0.1.11:8080  its check takes 50 ms, those of the others 0.3 m
draining    web 10.0.1.13:8080  10 connections left
 events ────────────────────────────────────────────────────────────────────────
00:00:00 state-changed   revision 17: drain 10.0.1.13:8080 of web




q quit  Enter backends  s sort  r reverse  / filter  e events
";

const BACKENDS: &str = "\
lb-agent 0.1.0  up 1h 2m  eth0 native  revision 17  flows 250 of 1.00M
services 2  backends 2/5 ok  active 257  new 247/s  in 2.47MB/s  out 113MB/s
 web: backends, by state ───────────────────────────────────────────────────────
BACKEND         STATE       WANT  HAS ACTIVE NEW/S CONNECT  CHECK IN B/S OUT B/S
10.0.1.12:8080  down          0%   0%      0     0       - 0.20ms  4.00k   9.00k
10.0.1.11:8080  slow         50%  50%     10    40       -   50ms  4.00k   9.00k
10.0.1.13:8080  draining      0%   0%     10     0       - 0.30ms  4.00k   9.00k
10.0.1.14:8080  ok           50%  50%     10    40       - 0.30ms  4.00k   9.00k






 10.0.1.12:8080 ────────────────────────────────────────────────────────────────
down: tcp connect to 10.0.1.12:8080: Connection refused (os error 111)
health unhealthy  admin enabled  weight 1 (effective 0)  opened 500
 events ────────────────────────────────────────────────────────────────────────
00:00:00 state-changed   revision 17: drain 10.0.1.13:8080 of web




q quit  Esc services  s sort  r reverse  / filter  e events
";

#[test]
fn the_first_screen_tells_the_slow_the_refusing_and_the_draining_apart() {
    assert_eq!(screen(&app(), 80, 24), SERVICES);
}

#[test]
fn a_service_is_opened_and_left_again() {
    let mut app = app();
    press(&mut app, KeyCode::Enter);
    assert_eq!(screen(&app, 80, 24), BACKENDS);
    press(&mut app, KeyCode::Down);
    assert!(screen(&app, 80, 24).contains("\nslow: its check takes 50 ms, those of the others 0.3 ms\n"));
    press(&mut app, KeyCode::Esc);
    assert!(screen(&app, 80, 24).contains(" services, by state "));
}

fn first_column(app: &App) -> Vec<String> {
    app.rows().iter().map(super::rows::Row::name).collect()
}

#[test]
fn rows_are_sorted_turned_round_and_filtered() {
    let mut app = App::new(Some("web".parse().unwrap()), false);
    app.take(Message::Data(Ok(data())));
    let by_condition = ["10.0.1.12:8080", "10.0.1.11:8080", "10.0.1.13:8080", "10.0.1.14:8080"];
    assert_eq!(first_column(&app), by_condition);
    type_in(&mut app, "s");
    assert_eq!(first_column(&app), [11, 12, 13, 14].map(|host| format!("10.0.1.{host}:8080")));
    type_in(&mut app, "ss");
    assert_eq!(first_column(&app)[..2], ["10.0.1.11:8080", "10.0.1.14:8080"], "by new connections");
    type_in(&mut app, "r");
    assert_eq!(first_column(&app)[0], "10.0.1.13:8080");
    type_in(&mut app, "/SLOWq");
    assert!(first_column(&app).is_empty(), "a q that is typed into a filter ends nothing");
    press(&mut app, KeyCode::Backspace);
    press(&mut app, KeyCode::Enter);
    assert_eq!(first_column(&app), ["10.0.1.11:8080"]);
    assert!(screen(&app, 80, 24).contains("web: backends, by new, reversed, with `SLOW`"));
    press(&mut app, KeyCode::Esc);
    assert_eq!(first_column(&app).len(), 4, "Esc drops the filter first");
}

#[test]
fn what_is_selected_stays_selected_when_rows_change_places() {
    let mut app = App::new(Some("web".parse().unwrap()), false);
    app.take(Message::Data(Ok(data())));
    press(&mut app, KeyCode::Down);
    assert_eq!(app.selected(), Some(1));
    let mut better = data();
    better.backends[0].condition = Condition::Ok;
    app.take(Message::Data(Ok(better)));
    assert_eq!(first_column(&app)[app.selected().unwrap()], "10.0.1.11:8080");
    press(&mut app, KeyCode::End);
    assert_eq!(app.selected(), Some(3));
    app.take(Message::Data(Ok(Data { backends: Vec::new(), ..data() })));
    assert_eq!(app.selected(), None);
    press(&mut app, KeyCode::PageDown);
}

#[test]
fn an_agent_that_does_not_answer_is_said_and_the_last_figures_stay() {
    let mut app = app();
    app.take(Message::Data(Err("the agent is not running".to_owned())));
    let shown = screen(&app, 80, 24);
    assert!(shown.contains("\nthe agent is not running\n"), "{shown}");
    assert!(shown.contains("down        web 10.0.1.12"), "{shown}");
    app.take(Message::Data(Ok(data())));
    assert!(!screen(&app, 80, 24).contains("not running"));
}

#[test]
fn q_control_c_and_a_signal_end_it() {
    let mut app = app();
    assert_eq!(press(&mut app, KeyCode::Char('x')), Next::Draw);
    assert_eq!(press(&mut app, KeyCode::Char('q')), Next::Quit);
    let control = |key| Message::Key(KeyEvent::new(KeyCode::Char(key), KeyModifiers::CONTROL));
    assert_eq!((app.take(control('x')), app.take(control('c'))), (Next::Draw, Next::Quit));
    assert_eq!(app.take(Message::Stop), Next::Quit);
}

#[test]
fn any_size_of_terminal_and_any_number_of_events_can_be_drawn() {
    let mut app = app();
    for id in 0..1500 {
        app.take(Message::Event(Event { id, time: Timestamp::default(), what: Happening::InStep {} }));
    }
    for page in ["", "e"] {
        type_in(&mut app, page);
        for (width, height) in [(1, 1), (20, 5), (80, 24), (300, 100)] {
            for code in [KeyCode::Down, KeyCode::End, KeyCode::PageUp, KeyCode::Home] {
                press(&mut app, code);
                screen(&app, width, height);
            }
        }
    }
    app.take(Message::Key(KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE)));
    let wide = screen(&app, 120, 24);
    assert!(wide.contains("IN P/S") && wide.contains(" 1.00k "), "{wide}");
}

#[test]
fn nothing_that_a_server_says_reaches_the_terminal_but_characters() {
    let mut app = app();
    let mut hostile = data();
    let reason = format!("\x1b[2J\u{9b}31m\r\n\u{202e}{}", "x".repeat(10_000));
    hostile.backends[1].condition_reason = Some(reason.clone());
    app.take(Message::Data(Ok(hostile)));
    let what = Happening::HealthChanged {
        service: "web".parse().unwrap(),
        backend: "10.0.1.12:8080".parse().unwrap(),
        from: Health::Healthy,
        to: Health::Unhealthy,
        reason,
    };
    app.take(Message::Event(Event { id: 9, time: Timestamp::default(), what }));
    for page in ["", "e"] {
        type_in(&mut app, page);
        let shown = screen(&app, 80, 24);
        assert!(shown.contains("\\u{1b}[2J"), "{shown}");
        assert!(shown.chars().all(|each| each == '\n' || !each.is_control()) && !shown.contains('\u{202e}'));
    }
}

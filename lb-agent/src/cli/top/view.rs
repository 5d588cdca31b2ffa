//! Draws what is to be seen. Every word of it tells what its colour tells.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row as Cells, Table, TableState};

use super::app::{App, Page};
use super::feed::Data;
use super::rows::Row;
use crate::api::types::{BackendView, ServiceRates, StatusView};
use crate::cli::events::summary;
use crate::cli::figures::{amount, plain, share, time, uptime};
use crate::control::{Condition, Rates};
use crate::events::{Event, Happening};

/// Lines of events beside something else.
const EVENTS: u16 = 5;
/// Backends that are not in order, at most.
const TROUBLES: usize = 6;
/// Columns of a terminal that has room for more.
const WIDE: u16 = 110;
/// Titles of columns that are no numbers.
const TEXTS: [&str; 4] = ["SERVICE", "VIP", "STATE", "BACKEND"];

pub(super) fn draw(app: &App, frame: &mut Frame<'_>) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(2), Constraint::Fill(1), Constraint::Length(1)])
            .areas(frame.area());
    frame.render_widget(Paragraph::new(headline(app)), head);
    match &app.page {
        Page::Services => services(app, frame, body),
        Page::Backends(name) => backends(app, frame, body, name.as_str()),
        Page::Events => events(app, frame, body, None),
    }
    frame.render_widget(Paragraph::new(keys(app)), foot);
}

/// The agent, and the sum of everything.
fn headline(app: &App) -> Vec<Line<'static>> {
    let Some(Data { status, backends }) = &app.data else { return Vec::new() };
    let interfaces = status.interfaces.iter().map(|each| match &each.problem {
        None => format!("{} {}", each.name, each.mode),
        Some(problem) => format!("{} {}: {}", each.name, each.mode, plain(problem)),
    });
    let first = format!(
        "lb-agent {}  up {}  {}  revision {}  flows {} of {}{}",
        status.version,
        uptime(status.uptime_seconds),
        interfaces.collect::<Vec<_>>().join(", "),
        status.revision,
        amount(status.flows.active as f64),
        amount(status.flows.capacity as f64),
        if status.in_step { "" } else { "  OUT OF STEP: see events" },
    );
    let second = match &app.problem {
        Some(problem) => Line::from(plain(problem)).style(app.style(Color::Red)),
        None => Line::from(sum(status, backends)),
    };
    vec![Line::from(first).style(Style::new().bold()), second]
}

fn sum(status: &StatusView, backends: &[BackendView]) -> String {
    let rates = || status.service_rates.iter();
    let total = |of: fn(&ServiceRates) -> f64| amount(rates().map(of).sum());
    let in_order = backends.iter().filter(|each| each.condition == Condition::Ok).count();
    format!(
        "services {}  backends {in_order}/{} ok  active {}  new {}/s  in {}B/s  out {}B/s",
        status.services,
        backends.len(),
        total(|each| each.service.active_connections as f64),
        total(|each| each.rates.connections_per_second),
        total(|each| each.rates.rx_bytes_per_second),
        total(|each| each.rates.tx_bytes_per_second),
    )
}

fn services(app: &App, frame: &mut Frame<'_>, area: Rect) {
    let troubles = troubles(app);
    let lines = if troubles.is_empty() { 0 } else { troubles.len() as u16 + 1 };
    let [list, trouble, happened] =
        Layout::vertical([Constraint::Fill(1), Constraint::Length(lines), Constraint::Length(EVENTS + 1)])
            .areas(area);
    let is_wide = area.width >= WIDE;
    let mut head = vec!["SERVICE", "VIP", "STATE", "OK", "ACTIVE", "NEW/S", "IN B/S", "OUT B/S"];
    let mut widths = vec![Constraint::Fill(2), Constraint::Fill(3)];
    widths.extend([11, 7, 6, 5, 6, 7].map(Constraint::Length));
    if is_wide {
        head.extend(["IN P/S", "OUT P/S"]);
        widths.extend([6, 7].map(Constraint::Length));
    }
    let row = |row: &Row<'_>| match row {
        Row::Service(service) => service_row(app, service, is_wide),
        Row::Backend(_) => Cells::default(),
    };
    table(app, frame, list, ("services", &head), &widths, &row);
    frame.render_widget(Paragraph::new(troubles).block(pane("not in order")), trouble);
    events(app, frame, happened, None);
}

fn service_row<'a>(app: &App, rates: &ServiceRates, is_wide: bool) -> Cells<'a> {
    let ServiceRates { service, active_backends, rates } = rates;
    let mut cells = vec![
        Cell::from(service.name.to_string()),
        Cell::from(format!("{}/{}", service.vip, service.protocol)),
        app.condition(app.worst(&service.name)),
        right(format!("{active_backends}/{}", service.backends)),
    ];
    let active = service.active_connections as f64;
    let figures =
        [active, rates.connections_per_second, rates.rx_bytes_per_second, rates.tx_bytes_per_second];
    cells.extend(figures.map(|figure| right(amount(figure))));
    if is_wide {
        cells.extend(packets(rates));
    }
    Cells::new(cells)
}

fn packets<'a>(rates: &Rates) -> [Cell<'a>; 2] {
    [rates.rx_packets_per_second, rates.tx_packets_per_second].map(|figure| right(amount(figure)))
}

/// The backends that something is the matter with, the worst first, with the reason.
fn troubles<'a>(app: &App) -> Vec<Line<'a>> {
    let Some(data) = &app.data else { return Vec::new() };
    let mut found: Vec<_> = data.backends.iter().filter(|each| each.condition != Condition::Ok).collect();
    found.sort_by_key(|each| each.condition);
    let line = |backend: &&BackendView| {
        let condition = Span::styled(format!("{:11} ", backend.condition), app.colour(backend.condition));
        let reason = plain(backend.condition_reason.as_deref().unwrap_or_default());
        Line::from(vec![condition, format!("{} {}  {reason}", backend.service, backend.address).into()])
    };
    let shown = if found.len() > TROUBLES { TROUBLES - 1 } else { TROUBLES };
    let mut lines: Vec<_> = found.iter().take(shown).map(line).collect();
    if found.len() > shown {
        lines.push(Line::from(format!("... and {} more", found.len() - shown)));
    }
    lines
}

fn backends(app: &App, frame: &mut Frame<'_>, area: Rect, service: &str) {
    let [list, detail, happened] =
        Layout::vertical([Constraint::Fill(1), Constraint::Length(3), Constraint::Length(EVENTS + 1)])
            .areas(area);
    let rows = app.rows();
    let of_service: Vec<_> = app
        .data
        .iter()
        .flat_map(|data| &data.backends)
        .filter(|each| each.service.as_str() == service)
        .collect();
    let weights: f64 = of_service.iter().map(|each| each.effective_weight.number()).sum();
    let opened: f64 = of_service.iter().map(|each| each.rates.connections_per_second).sum();
    let is_wide = area.width >= WIDE;
    let mut head =
        vec!["BACKEND", "STATE", "WANT", "HAS", "ACTIVE", "NEW/S", "CONNECT", "CHECK", "IN B/S", "OUT B/S"];
    let mut widths = vec![Constraint::Fill(1)];
    widths.extend([11, 4, 4, 6, 5, 7, 6, 6, 7].map(Constraint::Length));
    if is_wide {
        head.extend(["IN P/S", "OUT P/S", "STAY"]);
        widths.extend([6, 7, 6].map(Constraint::Length));
    }
    let row = |row: &Row<'_>| match row {
        Row::Backend(backend) => backend_row(app, backend, (weights, opened), is_wide),
        Row::Service(_) => Cells::default(),
    };
    let title = format!("{service}: backends");
    table(app, frame, list, (&title, &head), &widths, &row);
    if let Some(Row::Backend(backend)) = app.selected().and_then(|at| rows.get(at)) {
        frame.render_widget(
            Paragraph::new(details(backend)).block(pane(&backend.address.to_string())),
            detail,
        );
    }
    events(app, frame, happened, Some(service));
}

fn backend_row<'a>(
    app: &App,
    backend: &BackendView,
    (weights, opened): (f64, f64),
    is_wide: bool,
) -> Cells<'a> {
    let or_none = |microseconds: Option<u64>| right(microseconds.map_or_else(|| "-".to_owned(), time));
    let rates = &backend.rates;
    let mut cells = vec![
        Cell::from(backend.address.to_string()),
        app.condition(backend.condition),
        right(share(backend.effective_weight.number(), weights)),
        right(share(rates.connections_per_second, opened)),
        right(amount(backend.traffic.active_connections as f64)),
        right(amount(rates.connections_per_second)),
        or_none(backend.connect_time.as_ref().map(|measured| measured.smoothed_microseconds)),
        or_none(backend.check.as_ref().map(|check| check.took_microseconds)),
        right(amount(rates.rx_bytes_per_second)),
        right(amount(rates.tx_bytes_per_second)),
    ];
    if is_wide {
        cells.extend(packets(rates));
        cells.push(or_none(backend.connections_stay_microseconds));
    }
    Cells::new(cells)
}

/// What there is to say of the selected backend.
fn details<'a>(backend: &BackendView) -> Vec<Line<'a>> {
    let reason = backend.condition_reason.as_deref().map_or_else(|| "in order".to_owned(), plain);
    let stay = backend.connections_stay_microseconds.map(|stay| format!("  connections stay {}", time(stay)));
    vec![
        Line::from(format!("{}: {reason}", backend.condition)),
        Line::from(format!(
            "health {}  admin {}  weight {} (effective {})  opened {}{}",
            backend.health,
            backend.admin,
            backend.weight,
            backend.effective_weight,
            backend.traffic.connections_total,
            stay.unwrap_or_default(),
        )),
    ]
}

type Drawn<'d> = &'d dyn for<'r> Fn(&Row<'r>) -> Cells<'d>;

/// The page's rows under a title.
fn table(
    app: &App,
    frame: &mut Frame<'_>,
    area: Rect,
    (title, head): (&str, &[&'static str]),
    widths: &[Constraint],
    row: Drawn<'_>,
) {
    let head = head.iter().map(|title| match TEXTS.contains(title) {
        true => Cell::from(*title),
        false => right((*title).to_owned()),
    });
    let order = if app.is_reversed { ", reversed" } else { "" };
    let title = format!("{title}, by {}{order}{}", app.sort.name(), filtered(app));
    let table = Table::new(app.rows().iter().map(row), widths.iter().copied())
        .header(Cells::new(head).style(Style::new().add_modifier(Modifier::DIM)))
        .block(pane(&title))
        .row_highlight_style(Style::new().reversed());
    let mut state = TableState::new().with_selected(app.selected());
    frame.render_stateful_widget(table, area, &mut state);
}

fn filtered(app: &App) -> String {
    if app.filter.is_empty() { String::new() } else { format!(", with `{}`", plain(&app.filter)) }
}

/// Events, the latest last; those of a service where one is named.
fn events(app: &App, frame: &mut Frame<'_>, area: Rect, service: Option<&str>) {
    let is_shown = |event: &&Event| service.is_none_or(|name| concerns(event, name));
    let shown: Vec<_> = app.events.iter().filter(is_shown).collect();
    let room = usize::from(area.height.saturating_sub(1));
    // On its own page one can go back from the latest.
    let back = if app.page == Page::Events { app.selected().unwrap_or_default() } else { 0 };
    let end = shown.len().saturating_sub(back).max(room.min(shown.len()));
    let line = |event: &&Event| {
        let time = event.time.to_string();
        // The day does not matter on a screen that is live.
        let time = time.get(11..19).unwrap_or(&time).to_owned();
        Line::from(vec![Span::from(time + " ").dim(), plain(&summary(event)).into()])
    };
    let lines: Vec<_> = shown[end.saturating_sub(room)..end].iter().map(line).collect();
    frame.render_widget(Paragraph::new(lines).block(pane("events")), area);
}

fn concerns(event: &Event, service: &str) -> bool {
    match &event.what {
        Happening::HealthChanged { service: of, .. } | Happening::PanicChanged { service: of, .. } => {
            of.as_str() == service
        }
        Happening::StateChanged { changes: lines, .. } | Happening::Reconciled { steps: lines } => {
            lines.iter().any(|line| line.split_whitespace().any(|word| word.trim_end_matches(':') == service))
        }
        _ => true,
    }
}

fn keys(app: &App) -> Line<'static> {
    let text = match (&app.page, app.is_typing) {
        (_, true) => format!("filter: {}_   Enter keeps it, Esc drops it", plain(&app.filter)),
        (Page::Services, _) => "q quit  Enter backends  s sort  r reverse  / filter  e events".to_owned(),
        (Page::Backends(_), _) => "q quit  Esc services  s sort  r reverse  / filter  e events".to_owned(),
        (Page::Events, _) => "q quit  Esc services  up/down through the events".to_owned(),
    };
    Line::from(text).style(Style::new().add_modifier(Modifier::DIM))
}

fn pane(title: &str) -> Block<'static> {
    Block::new()
        .borders(Borders::TOP)
        .title(format!(" {title} "))
        .border_style(Style::new().add_modifier(Modifier::DIM))
}

fn right<'a>(text: String) -> Cell<'a> {
    Cell::from(Line::from(text).right_aligned())
}

impl App {
    fn style(&self, colour: Color) -> Style {
        if self.without_colours { Style::new().bold() } else { Style::new().fg(colour) }
    }

    fn colour(&self, condition: Condition) -> Style {
        match condition {
            Condition::Ok if self.without_colours => Style::new(),
            Condition::Ok => self.style(Color::Green),
            Condition::Down | Condition::Ejected => self.style(Color::Red),
            Condition::Failing | Condition::Slow => self.style(Color::Yellow),
            Condition::Removing | Condition::Draining | Condition::Maintenance => self.style(Color::Cyan),
        }
    }

    fn condition<'a>(&self, condition: Condition) -> Cell<'a> {
        Cell::from(condition.name()).style(self.colour(condition))
    }
}

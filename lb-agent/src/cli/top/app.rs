//! What is to be seen, and how it changes. No I/O.

use std::collections::{BTreeMap, VecDeque};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::feed::{Data, Message};
use super::rows::{Row, Sort};
use crate::control::Condition;
use crate::events::Event;
use crate::model::ServiceName;

/// Events that are kept.
const EVENTS: usize = 1000;
/// Rows that a page key moves by.
const PAGE: isize = 10;

/// What follows from a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Draw,
    Quit,
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Services,
    Backends(ServiceName),
    Events,
}

/// Everything that is to be seen.
pub(super) struct App {
    pub(super) data: Option<Data>,
    /// The worst that is the matter with each service's backends.
    worst: BTreeMap<ServiceName, Condition>,
    /// Why the data is not of this second.
    pub(super) problem: Option<String>,
    /// The latest last.
    pub(super) events: VecDeque<Event>,
    pub(super) page: Page,
    pub(super) sort: Sort,
    pub(super) is_reversed: bool,
    pub(super) filter: String,
    /// Whether what is typed goes into the filter.
    pub(super) is_typing: bool,
    /// What is selected, by its name: rows change places.
    selected: Option<String>,
    /// Where it was last.
    position: usize,
    pub(super) without_colours: bool,
}

impl App {
    pub(super) fn new(service: Option<ServiceName>, without_colours: bool) -> Self {
        Self {
            data: None,
            worst: BTreeMap::new(),
            problem: None,
            events: VecDeque::new(),
            page: service.map_or(Page::Services, Page::Backends),
            sort: Sort::default(),
            is_reversed: false,
            filter: String::new(),
            is_typing: false,
            selected: None,
            position: 0,
            without_colours,
        }
    }

    /// Takes what has come.
    pub(super) fn take(&mut self, message: Message) -> Next {
        match message {
            Message::Data(Ok(data)) => {
                self.problem = None;
                self.worst = worst(&data);
                self.data = Some(data);
            }
            Message::Data(Err(problem)) => self.problem = Some(problem),
            Message::Event(event) => {
                if self.events.len() == EVENTS {
                    self.events.pop_front();
                }
                self.events.push_back(event);
            }
            Message::Resized => {}
            Message::Stop => return Next::Quit,
            Message::Key(key) => return self.press(key),
        }
        Next::Draw
    }

    fn press(&mut self, key: KeyEvent) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Next::Quit } else { Next::Draw };
        }
        if self.is_typing {
            self.type_filter(key.code);
            return Next::Draw;
        }
        match key.code {
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Enter | KeyCode::Right => self.enter(),
            KeyCode::Esc | KeyCode::Left | KeyCode::Backspace => self.leave(),
            KeyCode::Up | KeyCode::Char('k') => self.move_by(-1),
            KeyCode::Down | KeyCode::Char('j') => self.move_by(1),
            KeyCode::PageUp => self.move_by(-PAGE),
            KeyCode::PageDown => self.move_by(PAGE),
            KeyCode::Home | KeyCode::Char('g') => self.move_by(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.move_by(isize::MAX),
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') => self.is_reversed = !self.is_reversed,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Char('e') => self.open(match self.page {
                Page::Events => Page::Services,
                _ => Page::Events,
            }),
            _ => {}
        }
        Next::Draw
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(character) => self.filter.push(character),
            _ => {}
        }
    }

    fn open(&mut self, page: Page) {
        self.page = page;
        self.filter.clear();
        self.selected = None;
        self.position = 0;
    }

    fn enter(&mut self) {
        let selected = self.selected().and_then(|at| self.rows().into_iter().nth(at));
        if let Some(Row::Service(service)) = selected {
            let name = service.service.name.clone();
            self.open(Page::Backends(name));
        }
    }

    /// First what is filtered, then where one came from.
    fn leave(&mut self) {
        let page = std::mem::replace(&mut self.page, Page::Services);
        if !self.filter.is_empty() {
            self.filter.clear();
            self.page = page;
            return;
        }
        self.open(Page::Services);
        if let Page::Backends(name) = page {
            self.selected = Some(name.to_string());
        }
    }

    fn move_by(&mut self, steps: isize) {
        let last = match self.page {
            Page::Events => self.events.len(),
            _ => self.rows().len(),
        }
        .saturating_sub(1);
        self.position = self.selected().unwrap_or_default().saturating_add_signed(steps).min(last);
        self.selected = self.rows().get(self.position).map(Row::name);
    }

    /// What the page shows, in its order.
    pub(super) fn rows(&self) -> Vec<Row<'_>> {
        let Some(Data { status, backends }) = &self.data else { return Vec::new() };
        let mut rows: Vec<_> = match &self.page {
            Page::Services => status.service_rates.iter().map(Row::Service).collect(),
            Page::Backends(name) => {
                backends.iter().filter(|each| each.service == *name).map(Row::Backend).collect()
            }
            Page::Events => Vec::new(),
        };
        let filter = self.filter.to_lowercase();
        rows.retain(|row| row.matches(&filter));
        let worst = |service: &ServiceName| self.worst(service);
        rows.sort_by(|a, b| self.sort.compare(a, b, &worst));
        if self.is_reversed {
            rows.reverse();
        }
        rows
    }

    /// Which row is selected.
    pub(super) fn selected(&self) -> Option<usize> {
        if self.page == Page::Events {
            return (!self.events.is_empty()).then_some(self.position);
        }
        let rows = self.rows();
        let last = rows.len().checked_sub(1)?;
        let found = rows.iter().position(|row| Some(row.name()) == self.selected);
        Some(found.unwrap_or(self.position).min(last))
    }

    pub(super) fn worst(&self, service: &ServiceName) -> Condition {
        self.worst.get(service).copied().unwrap_or_default()
    }
}

fn worst(data: &Data) -> BTreeMap<ServiceName, Condition> {
    let mut worst: BTreeMap<ServiceName, Condition> = BTreeMap::new();
    for backend in &data.backends {
        let known = worst.entry(backend.service.clone()).or_default();
        *known = backend.condition.min(*known);
    }
    worst
}

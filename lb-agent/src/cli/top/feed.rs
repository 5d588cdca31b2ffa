//! What `top` lives on: the agent's answers once a second, its events as they happen, what is typed, and signals.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use hyper::Method;
use ratatui::crossterm::event::{self, Event as Input, KeyEvent, KeyEventKind};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::api::types::{BackendView, StatusView};
use crate::client::{Client, ClientError};
use crate::events::Event;

/// Between two questions to the agent; also before one that did not answer is asked again.
const EVERY: Duration = Duration::from_secs(1);

/// What the agent says of everything.
pub(super) struct Data {
    pub(super) status: StatusView,
    pub(super) backends: Vec<BackendView>,
}

/// Something that changes what is seen.
pub(super) enum Message {
    Data(Result<Data, String>),
    Event(Event),
    Key(KeyEvent),
    /// The terminal has another size.
    Resized,
    /// Somebody wants it to end: a signal, or a terminal that is gone.
    Stop,
}

/// Asks the agent for everything.
pub(super) fn ask(client: &Client) -> Result<Data, ClientError> {
    let backends = client.call(Method::GET, &["backends"]).read()?;
    Ok(Data { status: client.call(Method::GET, &["status"]).read()?, backends })
}

/// What brings messages, until nobody listens any more.
type Work = Box<dyn FnOnce(&Sender<Message>) -> Option<()> + Send>;

/// Starts everything that brings messages. All of it ends with the process.
pub(super) fn start(client: Client) -> io::Result<Receiver<Message>> {
    let (sender, messages) = mpsc::channel();
    let spawn = |name: &str, work: Work| {
        let sender = sender.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || work(&sender))
    };
    let events = client.clone();
    spawn("events", Box::new(move |to| follow_events(&events, to)))?;
    spawn("poll", Box::new(move |to| poll(&client, to)))?;
    spawn("input", Box::new(read_input))?;
    spawn("signals", Box::new(wait_for_signals))?;
    Ok(messages)
}

fn poll(client: &Client, to: &Sender<Message>) -> Option<()> {
    loop {
        thread::sleep(EVERY);
        to.send(Message::Data(ask(client).map_err(|error| error.to_string()))).ok()?;
    }
}

fn follow_events(client: &Client, to: &Sender<Message>) -> Option<()> {
    let mut last = 0;
    loop {
        let call = client.call(Method::GET, &["events"]).parameter("after", Some(last));
        // That the agent went away is seen by whoever asks it every second.
        let _ = call.listen(|data| {
            let event: Event = serde_json::from_str(data)?;
            last = last.max(event.id);
            Ok(to.send(Message::Event(event))?)
        });
        thread::sleep(EVERY);
    }
}

fn read_input(to: &Sender<Message>) -> Option<()> {
    loop {
        let message = match event::read() {
            Ok(Input::Key(key)) if key.kind != KeyEventKind::Release => Message::Key(key),
            Ok(Input::Resize(..)) => Message::Resized,
            Ok(_) => continue,
            Err(_) => Message::Stop,
        };
        let is_last = matches!(message, Message::Stop);
        to.send(message).ok().filter(|()| !is_last)?;
    }
}

fn wait_for_signals(to: &Sender<Message>) -> Option<()> {
    let runtime = Builder::new_current_thread().enable_io().build().ok()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).ok()?;
        let mut interrupt = signal(SignalKind::interrupt()).ok()?;
        let mut hang_up = signal(SignalKind::hangup()).ok()?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hang_up.recv() => {}
        }
        Some(())
    })?;
    to.send(Message::Stop).ok()
}

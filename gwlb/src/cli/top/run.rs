//! The loop: answers and keys come in, and the screen goes out.

use std::io;
use std::ops::{Deref, DerefMut};
use std::process::ExitCode;
use std::time::Duration;

use hyper::Method;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event as Input, KeyEventKind};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::answers::{Answer, Event, Status, TargetGroup};
use super::keys::{self, Action};
use super::model::Model;
use super::screen::{self, Palette};
use super::view::{Deed, View};
use crate::cli::client::{AskError, Client};
use crate::cli::shown::Target;
use crate::cli::target;
use crate::runtime::clock;

/// How many keys may wait. Who types faster than that waits for the screen.
const KEYS: usize = 64;

/// How often a screen is drawn anew that waits for an answer.
const LOOK: Duration = Duration::from_secs(1);

/// Shows what the gateway does until somebody has seen enough.
pub(super) async fn run(
    client: &Client,
    interval: Duration,
    colour: bool,
) -> Result<ExitCode, AskError> {
    let mut signals = Signals::new().map_err(|error| failed("listen to signals", &error))?;
    let palette = Palette { colour };
    let mut view = View::new(client.place(), interval);
    let mut model = Model::default();
    let mut terminal = Terminal::open().map_err(|error| failed("use the terminal", &error))?;
    let mut inputs = listen();
    let mut asked = clock::now();
    let mut next = asked;
    let mut poll = None;
    let mut deed = None;
    loop {
        let now = clock::now();
        if poll.is_none() && !view.paused && now >= next {
            (asked, next) = (now, now + view.interval);
            poll = Some(Box::pin(ask(client, model.last_event())));
        }
        view.waiting = poll.as_ref().map(|_| now.saturating_duration_since(asked));
        terminal
            .draw(|frame| screen::draw(frame, &model, &view, palette))
            .map_err(|error| failed("draw", &error))?;
        let interval = view.interval;
        tokio::select! {
            input = inputs.recv() => match input {
                Some(Ok(Input::Key(key))) if key.kind != KeyEventKind::Release => {
                    match keys::press(key, &mut view, &model) {
                        Some(Action::Quit) => return Ok(ExitCode::SUCCESS),
                        Some(Action::Do(..)) if deed.is_some() => {
                            view.say("the gateway is still busy with what was asked before", true);
                        }
                        Some(Action::Do(what, group, address)) => {
                            view.say(format!("asks for it: {address} of {group} ..."), false);
                            deed = Some(Box::pin(act(client, what, group, address)));
                        }
                        None => {}
                    }
                    // Who wants it faster need not wait for the end of what was long.
                    if view.interval != interval {
                        next = next.min(clock::now() + view.interval);
                    }
                }
                // Of another size, the screen is drawn anew; everything else says nothing here.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(failed("read keys", &error)),
                None => return Err(AskError::Other("no more keys can be read".to_owned())),
            },
            answer = come(&mut poll) => {
                poll = None;
                match answer {
                    Ok(answer) => model.take(answer),
                    Err(error) => model.lose(error.to_string()),
                }
            }
            done = come(&mut deed) => {
                deed = None;
                match done {
                    Ok(said) => view.say(said, false),
                    Err(error) => view.say(error.to_string(), true),
                }
                // What it has changed is to be seen at once.
                next = clock::now();
            }
            () = tokio::time::sleep_until(next.into()), if poll.is_none() && !view.paused => {}
            // How long there has been no answer is to be seen.
            () = tokio::time::sleep(LOOK), if poll.is_some() => {}
            () = signals.end() => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// What a question brings, if there is one under way.
async fn come<F: Future + Unpin>(question: &mut Option<F>) -> F::Output {
    match question {
        Some(question) => question.await,
        None => std::future::pending().await,
    }
}

/// Everything that is shown, from the gateway.
async fn ask(client: &Client, last_event: Option<u64>) -> Result<Answer, AskError> {
    let status = Status::of(&client.get("/v1/status").await?)?;
    let groups = TargetGroup::list(&client.get("/v1/target-groups").await?)?;
    let since = last_event.map(|id| format!("&since={id}")).unwrap_or_default();
    let events = match client.get(&format!("/v1/events?follow=false{since}")).await {
        Ok(list) => Some(Event::list(&list)?),
        // Gateways of other versions have none.
        Err(AskError::Refused(refusal)) if refusal.status == 404 => None,
        Err(error) => return Err(error),
    };
    Ok(Answer { status, events, groups })
}

/// Does something with a target, and says what came of it.
async fn act(
    client: &Client,
    what: Deed,
    group: String,
    address: std::net::SocketAddr,
) -> Result<String, AskError> {
    let path = target::path(&group, address.ip(), Some(address.port()));
    let answer = match what {
        Deed::Drain => client.delete(&path).await?,
        // Zone and weight stay as they are.
        Deed::Register => client.json(Method::PUT, &path, &json!({})).await?,
    };
    let target = Target::of(&answer)?;
    let standing = match target.draining {
        // It is out before anybody sees it drain.
        Some(draining) if draining.flows_left == 0 => {
            "deregistered, and has no flows that could go on (r registers it again)".to_owned()
        }
        Some(draining) => format!("draining: {draining}"),
        None => target.standing(),
    };
    Ok(format!("{} of {group} is {standing}", target.address))
}

fn failed(what: &str, error: &io::Error) -> AskError {
    AskError::Other(format!("cannot {what}: {error}"))
}

/// The terminal, which is as it was before when this is gone; when something panics, already before
/// that is said.
struct Terminal(DefaultTerminal);

impl Terminal {
    fn open() -> io::Result<Self> {
        // What of it was done before it failed is taken back.
        ratatui::try_init().map(Self).inspect_err(|_| ratatui::restore())
    }
}

impl Deref for Terminal {
    type Target = DefaultTerminal;

    fn deref(&self) -> &DefaultTerminal {
        &self.0
    }
}

impl DerefMut for Terminal {
    fn deref_mut(&mut self) -> &mut DefaultTerminal {
        &mut self.0
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.0.show_cursor();
        // A second time would put the cursor where it was, onto what the panic has said.
        if !std::thread::panicking() {
            ratatui::restore();
        }
    }
}

/// What is typed, from a thread that waits for it. It ends with the program.
fn listen() -> mpsc::Receiver<io::Result<Input>> {
    let (tell, inputs) = mpsc::channel(KEYS);
    std::thread::spawn(move || {
        loop {
            let input = event::read();
            let last = input.is_err();
            if tell.blocking_send(input).is_err() || last {
                break;
            }
        }
    });
    inputs
}

/// The signals that end programs. Without a handler they would leave the terminal as it is.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> io::Result<Self> {
        let kinds = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()];
        let [terminate, hangup, interrupt] = kinds.map(signal);
        Ok(Self([terminate?, hangup?, interrupt?]))
    }

    async fn end(&mut self) {
        let [terminate, hangup, interrupt] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

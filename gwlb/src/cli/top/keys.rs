//! What a key means.

use std::net::SocketAddr;
use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::figures;
use super::model::{Model, TargetRow};
use super::view::{Deed, Mode, Panel, Question, View};

/// What is to be done that a key alone cannot do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Quit,
    /// Something is done with a target of this group, at this address and port.
    Do(Deed, String, SocketAddr),
}

/// How often the gateway may be asked, in milliseconds.
const INTERVALS: [u64; 9] = [200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 60_000];

/// How many rows a page has, whatever the size of the panel.
const PAGE: isize = 10;

/// Does what a key says.
pub(super) fn press(key: KeyEvent, view: &mut View, model: &Model) -> Option<Action> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        if key.code == KeyCode::Char('u') && matches!(view.mode, Mode::Filtering { .. }) {
            view.focused().filter.clear();
        }
        return (key.code == KeyCode::Char('c')).then_some(Action::Quit);
    }
    match view.mode.clone() {
        Mode::Watching => {
            let said = view.message.take().is_some();
            // Who leaves something by this key does not mean to leave everything.
            if key.code == KeyCode::Esc && (said || view.unfilter()) {
                return None;
            }
            watch(key.code, view, model)
        }
        Mode::Filtering { before } => {
            filter(key.code, view, before);
            None
        }
        Mode::Asking(question) => answer(key.code, view, question),
        Mode::Helping => {
            view.mode = Mode::Watching;
            None
        }
    }
}

fn watch(key: KeyCode, view: &mut View, model: &Model) -> Option<Action> {
    match key {
        KeyCode::Char('q') | KeyCode::Esc => return Some(Action::Quit),
        KeyCode::Down | KeyCode::Char('j') => view.select(model, 1),
        KeyCode::Up | KeyCode::Char('k') => view.select(model, -1),
        KeyCode::PageDown => view.select(model, PAGE),
        KeyCode::PageUp => view.select(model, -PAGE),
        KeyCode::End | KeyCode::Char('G') => view.select(model, isize::MAX),
        KeyCode::Home | KeyCode::Char('g') => view.select(model, isize::MIN),
        KeyCode::Tab => view.focus = view.focus.after(1),
        KeyCode::BackTab => view.focus = view.focus.after(Panel::ALL.len() - 1),
        KeyCode::Char('s') => sort(view),
        KeyCode::Char('S') => view.focused().reversed ^= true,
        KeyCode::Char('/') => {
            view.mode = Mode::Filtering { before: view.focused().filter.clone() };
        }
        KeyCode::Char('d') => ask(view, model, Deed::Drain),
        KeyCode::Char('r') => ask(view, model, Deed::Register),
        KeyCode::Char('p') => view.paused ^= true,
        KeyCode::Char('z') => view.alone ^= true,
        KeyCode::Char('+' | '=') => pace(view, |at, now| at > now),
        KeyCode::Char('-') => pace(view, |at, now| at < now),
        KeyCode::Char('?' | 'h') => view.mode = Mode::Helping,
        _ => {}
    }
    None
}

fn sort(view: &mut View) {
    let orders = view.orders();
    let listing = view.focused();
    listing.order = (listing.order + 1) % orders.len();
    let (by, one) = (orders[listing.order], orders.len() == 1);
    if one {
        view.say(format!("{} have one order alone; S turns it round", view.focus.name()), false);
    } else {
        view.say(format!("{} sorted by {by}", view.focus.name()), false);
    }
}

/// The next interval that is longer, or shorter.
fn pace(view: &mut View, wanted: fn(Duration, Duration) -> bool) {
    let mut steps: Vec<_> = INTERVALS.map(Duration::from_millis).into();
    steps.retain(|at| wanted(*at, view.interval));
    // Of the shorter ones the longest.
    let next = steps.into_iter().min_by_key(|at| at.abs_diff(view.interval));
    match next {
        Some(next) => {
            view.interval = next;
            view.say(format!("asks every {}", figures::interval(next)), false);
        }
        None => view.say("the interval is 0.2 to 60 s", true),
    }
}

/// Asks whether something is to be done with the selected target, if it can be.
fn ask(view: &mut View, model: &Model, what: Deed) {
    let verb = match what {
        Deed::Drain => "drain",
        Deed::Register => "register",
    };
    if view.focus != Panel::Targets {
        return view
            .say(format!("to {verb} a target, go to the targets (Tab) and select it"), true);
    }
    let Some(target) = view.selected(model) else {
        return view.say(format!("there is no target to {verb}"), true);
    };
    if let Some(why_not) = why_not(what, target) {
        return view.say(why_not, true);
    }
    let (group, address) = (target.group.clone(), target.address.clone());
    view.mode = Mode::Asking(Question { what, group, address });
}

/// Why it cannot be done, if it cannot.
fn why_not(what: Deed, target: &TargetRow) -> Option<String> {
    let (address, state) = (&target.address, &target.state);
    match what {
        Deed::Drain if state == "draining" => Some(format!("{address} is draining already")),
        Deed::Drain if target.may_return() => Some(format!("{address} is deregistered already")),
        Deed::Register if !target.may_return() => {
            Some(format!("{address} is registered; r takes back a drain (d)"))
        }
        _ => None,
    }
}

fn answer(key: KeyCode, view: &mut View, question: Question) -> Option<Action> {
    match key {
        KeyCode::Enter | KeyCode::Char('y' | 'Y') => {
            view.mode = Mode::Watching;
            let Ok(address) = question.address.parse() else {
                view.say(format!("{} is no address that can be asked for", question.address), true);
                return None;
            };
            Some(Action::Do(question.what, question.group, address))
        }
        KeyCode::Esc | KeyCode::Char('n' | 'N' | 'q') => {
            view.mode = Mode::Watching;
            view.say("nothing was done", false);
            None
        }
        _ => None,
    }
}

fn filter(key: KeyCode, view: &mut View, before: String) {
    match key {
        KeyCode::Enter => view.mode = Mode::Watching,
        KeyCode::Esc => {
            view.focused().filter = before;
            view.mode = Mode::Watching;
        }
        KeyCode::Backspace => {
            view.focused().filter.pop();
        }
        // Nobody looks for more than a line.
        KeyCode::Char(letter) if view.focused().filter.len() < 64 => {
            view.focused().filter.push(letter);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::top::model::tests::{answer, event, status};

    struct User {
        view: View,
        model: Model,
    }

    impl User {
        fn new() -> Self {
            let mut model = Model::default();
            model.take(answer(&status(1_000, 0), &[event(1, "a"), event(2, "b"), event(3, "c")]));
            Self { view: View::new(String::new(), Duration::from_secs(1)), model }
        }

        /// Types these letters; the last key's action.
        fn types(&mut self, letters: &str) -> Option<Action> {
            letters.chars().map(|letter| self.press(KeyCode::Char(letter))).last().flatten()
        }

        fn press(&mut self, code: KeyCode) -> Option<Action> {
            press(KeyEvent::from(code), &mut self.view, &self.model)
        }

        fn selected(&self) -> &str {
            &self.view.selected(&self.model).unwrap().address
        }

        fn said(&self) -> &str {
            self.view.message.as_ref().map_or("", |message| &message.text)
        }

        fn drained(&mut self, target: usize) {
            let mut status = status(2_000, 0);
            status["targets"][target]["state"] = "draining".into();
            status["targets"][target]["reason"] = "Target.DeregistrationInProgress".into();
            self.model.take(answer(&status, &[]));
        }
    }

    const FIRST: &str = "192.0.2.11:6081";
    const SECOND: &str = "192.0.2.12:6081";

    #[test]
    fn every_way_out_is_one() {
        let control = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        for modes in ["", "/", "d", "?"] {
            let mut user = User::new();
            user.types(modes);
            assert_eq!(press(control, &mut user.view, &user.model), Some(Action::Quit), "{modes}");
        }
        assert_eq!(User::new().types("q"), Some(Action::Quit));
        assert_eq!(User::new().press(KeyCode::Esc), Some(Action::Quit));
        // Where q and Esc leave something else, they do not leave the program.
        for modes in ["/", "d", "?"] {
            for key in [KeyCode::Char('q'), KeyCode::Esc] {
                let mut user = User::new();
                user.types(modes);
                assert_eq!(user.press(key), None, "{modes} {key}");
            }
        }
    }

    #[test]
    fn esc_leaves_one_thing_after_the_other() {
        let mut user = User::new();
        user.types("/.12");
        user.press(KeyCode::Enter);
        user.press(KeyCode::Tab);
        user.types("/vpce");
        user.press(KeyCode::Enter);
        user.types("d");
        assert_eq!(user.said(), "to drain a target, go to the targets (Tab) and select it");
        let filters = |user: &User| {
            [Panel::Targets, Panel::Endpoints].map(|it| user.view.listing(it).filter.clone())
        };
        for (said, left) in [("", [".12", "vpce"]), ("", [".12", ""]), ("", ["", ""])] {
            assert_eq!(user.press(KeyCode::Esc), None);
            assert_eq!((user.said(), filters(&user)), (said, left.map(str::to_owned)));
        }
        assert_eq!(user.press(KeyCode::Esc), Some(Action::Quit));
    }

    #[test]
    fn a_filter_is_cleared_while_it_is_typed() {
        let clear = KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL);
        let mut user = User::new();
        user.types("/nonsense");
        assert_eq!(press(clear, &mut user.view, &user.model), None);
        user.types(".12");
        assert_eq!(user.view.listing(Panel::Targets).filter, ".12");
        user.press(KeyCode::Enter);
        press(clear, &mut user.view, &user.model);
        assert_eq!(user.view.listing(Panel::Targets).filter, ".12", "not when it is kept");
    }

    #[test]
    fn the_selection_stays_with_its_row() {
        let mut user = User::new();
        assert_eq!(user.selected(), FIRST);
        user.types("j");
        assert_eq!(user.selected(), SECOND);
        user.types("jj");
        assert_eq!(user.selected(), SECOND, "there is no further one");
        user.types("S");
        assert_eq!(user.selected(), SECOND);
        user.types("j");
        assert_eq!(user.selected(), FIRST, "it is below now");
        user.press(KeyCode::Up);
        assert_eq!(user.selected(), SECOND);
        user.types("G");
        assert_eq!(user.selected(), FIRST);
        user.press(KeyCode::Home);
        assert_eq!(user.selected(), SECOND);
        let mut without = status(2_000, 0);
        without["targets"].as_array_mut().unwrap().pop();
        user.model.take(answer(&without, &[]));
        assert_eq!(user.selected(), FIRST, "the other one is gone");
    }

    #[test]
    fn who_is_at_the_newest_event_stays_there() {
        let mut user = User::new();
        user.press(KeyCode::BackTab);
        assert_eq!(user.view.focus, Panel::Events);
        let at = |user: &User| {
            let listing = user.view.listing(Panel::Events);
            let rows = listing.rows(&user.model.events);
            rows[listing.place(&rows).unwrap()].id
        };
        user.types("jk");
        user.model.take(answer(&status(2_000, 0), &[event(4, "d")]));
        assert_eq!(at(&user), 4);
        user.types("j");
        user.model.take(answer(&status(3_000, 0), &[event(5, "e")]));
        assert_eq!(at(&user), 3);
    }

    #[test]
    fn a_target_is_drained_after_a_question() {
        let mut user = User::new();
        assert_eq!(user.types("jd"), None);
        let (group, address) = ("fw".to_owned(), SECOND.to_owned());
        assert_eq!(
            user.view.mode,
            Mode::Asking(Question { what: Deed::Drain, group: group.clone(), address })
        );
        assert_eq!(user.types("x"), None, "no answer");
        let done = Action::Do(Deed::Drain, group, SECOND.parse().unwrap());
        assert_eq!(user.types("y"), Some(done.clone()));
        assert_eq!(user.view.mode, Mode::Watching);
        user.types("d");
        assert_eq!(user.press(KeyCode::Enter), Some(done));
        for no in [KeyCode::Char('n'), KeyCode::Esc] {
            user.types("d");
            assert_eq!(user.press(no), None);
            assert_eq!(user.said(), "nothing was done");
        }
    }

    #[test]
    fn what_cannot_be_done_is_not_asked() {
        let mut user = User::new();
        user.types("r");
        assert_eq!(user.said(), "192.0.2.11:6081 is registered; r takes back a drain (d)");
        user.drained(0);
        user.types("d");
        assert_eq!(user.said(), "192.0.2.11:6081 is draining already");
        user.types("r");
        let address = FIRST.parse().unwrap();
        assert_eq!(user.types("y"), Some(Action::Do(Deed::Register, "fw".to_owned(), address)));
        // Without flows it is not long on its way.
        let mut gone = status(2_500, 0);
        gone["targets"][0]["state"] = "unused".into();
        gone["targets"][0]["reason"] = "Target.NotRegistered".into();
        user.model.take(answer(&gone, &[]));
        user.types("d");
        assert_eq!(user.said(), "192.0.2.11:6081 is deregistered already");
        user.press(KeyCode::Tab);
        user.types("d");
        assert_eq!(user.said(), "to drain a target, go to the targets (Tab) and select it");
        user.press(KeyCode::BackTab);
        let mut none = status(3_000, 0);
        none["targets"] = json!([]);
        user.model.take(answer(&none, &[]));
        user.types("d");
        assert_eq!(user.said(), "there is no target to drain");
        assert_eq!(user.view.mode, Mode::Watching);
    }

    #[test]
    fn rows_are_sorted_and_filtered_panel_by_panel() {
        let mut user = User::new();
        user.types("ss");
        assert_eq!(user.said(), "Targets sorted by flows");
        user.types("/.12");
        assert_eq!(user.view.mode, Mode::Filtering { before: String::new() });
        assert_eq!(user.selected(), SECOND, "while it is typed");
        user.press(KeyCode::Backspace);
        user.types("2q");
        assert_eq!(user.view.selected(&user.model), None);
        user.press(KeyCode::Esc);
        assert_eq!(user.view.listing(Panel::Targets).filter, "");
        user.types("/FW");
        user.press(KeyCode::Enter);
        assert_eq!(user.selected(), FIRST, "large letters and small ones");
        assert_eq!(user.view.listing(Panel::Drops).filter, "");
        user.types(&format!("/{}", "x".repeat(200)));
        assert_eq!(user.view.listing(Panel::Targets).filter.len(), 64);
    }

    #[test]
    fn it_is_paused_and_paced() {
        let mut user = User::new();
        user.types("p");
        assert!(user.view.paused);
        user.types("p+");
        assert!(!user.view.paused);
        assert_eq!((user.view.interval, user.said()), (Duration::from_secs(2), "asks every 2 s"));
        user.types("---");
        assert_eq!(user.said(), "asks every 0.2 s");
        user.types("-");
        assert_eq!(user.said(), "the interval is 0.2 to 60 s");
        user.view.interval = Duration::from_secs_f64(1.7);
        user.types("+");
        assert_eq!(user.view.interval, Duration::from_secs(2));
        user.types("++++++++");
        assert_eq!(user.view.interval, Duration::from_mins(1));
    }
}

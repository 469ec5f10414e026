//! How somebody looks at the model: which panel, which row, in which order, and what is asked.

use std::time::Duration;

use super::model::{EndpointRow, Model, Row, TargetRow};

/// The panels that hold rows, in the order in which Tab goes through them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Panel {
    Targets,
    Endpoints,
    Drops,
    Events,
}

impl Panel {
    pub const ALL: [Self; 4] = [Self::Targets, Self::Endpoints, Self::Drops, Self::Events];

    pub fn name(self) -> &'static str {
        match self {
            Self::Targets => "Targets",
            Self::Endpoints => "Endpoints",
            Self::Drops => "Drops",
            Self::Events => "Events",
        }
    }

    /// The one that is so many further.
    pub fn after(self, steps: usize) -> Self {
        Self::ALL[(self as usize + steps) % Self::ALL.len()]
    }
}

/// How the rows of one panel are looked at.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Listing {
    /// The number of the order, as [`Row::ORDERS`] has it.
    pub order: usize,
    pub reversed: bool,
    /// Only rows with this text in them.
    pub filter: String,
    /// Where the row is, or was, that is selected.
    at: usize,
    /// Its key: the selection stays with the row when others come and go. `None`: whichever is
    /// there.
    chosen: Option<String>,
}

/// What keys mean at the moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Mode {
    Watching,
    /// A filter is typed; this one was there before.
    Filtering {
        before: String,
    },
    /// Something is asked before it is done.
    Asking(Question),
    Helping,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub what: Deed,
    pub group: String,
    /// With its port.
    pub address: String,
}

/// What can be done with a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Drain,
    Register,
}

/// What is said of something that was done, or cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub text: String,
    pub bad: bool,
}

/// How somebody looks at a gateway.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct View {
    /// The gateway's socket or address.
    pub place: String,
    pub focus: Panel,
    listings: [Listing; 4],
    pub mode: Mode,
    pub message: Option<Message>,
    pub paused: bool,
    /// Whether the panel in focus has the screen for itself.
    pub alone: bool,
    pub interval: Duration,
    /// How long the gateway has not answered what it was asked last.
    pub waiting: Option<Duration>,
}

impl View {
    pub fn new(place: String, interval: Duration) -> Self {
        Self {
            place,
            focus: Panel::Targets,
            listings: Default::default(),
            mode: Mode::Watching,
            message: None,
            paused: false,
            alone: false,
            interval,
            waiting: None,
        }
    }

    pub fn listing(&self, panel: Panel) -> &Listing {
        &self.listings[panel as usize]
    }

    /// The listing of the panel in focus.
    pub fn focused(&mut self) -> &mut Listing {
        &mut self.listings[self.focus as usize]
    }

    /// The target that is selected.
    pub fn selected<'a>(&self, model: &'a Model) -> Option<&'a TargetRow> {
        let rows = self.listing(Panel::Targets).rows(&model.targets);
        let at = self.listing(Panel::Targets).place(&rows)?;
        rows.get(at).copied()
    }

    /// Selects a row that is so many further down, or up.
    pub fn select(&mut self, model: &Model, steps: isize) {
        let listing = &mut self.listings[self.focus as usize];
        match self.focus {
            Panel::Targets => listing.go(&model.targets, steps, true),
            Panel::Endpoints => listing.go(&model.endpoints, steps, true),
            Panel::Drops => listing.go(&model.drops, steps, true),
            // Who is at the newest wants to stay there.
            Panel::Events => listing.go(&model.events, steps, false),
        }
    }

    /// Takes back the filter of the panel in focus, or else those of the others. Says whether there
    /// was any.
    pub fn unfilter(&mut self) -> bool {
        if !self.focused().filter.is_empty() {
            self.focused().filter.clear();
            return true;
        }
        let mut any = false;
        for listing in &mut self.listings {
            any |= !std::mem::take(&mut listing.filter).is_empty();
        }
        any
    }

    /// What the panel in focus can be sorted by.
    pub fn orders(&self) -> &'static [&'static str] {
        orders(self.focus)
    }

    pub fn say(&mut self, text: impl Into<String>, bad: bool) {
        self.message = Some(Message { text: text.into(), bad });
    }
}

/// What a panel can be sorted by.
pub(super) fn orders(panel: Panel) -> &'static [&'static str] {
    match panel {
        Panel::Targets => TargetRow::ORDERS,
        Panel::Endpoints => EndpointRow::ORDERS,
        Panel::Drops => super::model::DropRow::ORDERS,
        Panel::Events => super::answers::Event::ORDERS,
    }
}

impl Listing {
    /// The rows that are shown, in their order.
    pub fn rows<'a, R: Row>(&self, rows: impl IntoIterator<Item = &'a R>) -> Vec<&'a R> {
        let wanted = self.filter.to_lowercase();
        let mut rows: Vec<_> = rows.into_iter().filter(|row| row.has(&wanted)).collect();
        rows.sort_by(|one, other| one.compare(other, self.order));
        if self.reversed {
            rows.reverse();
        }
        rows
    }

    /// Where among the rows that are shown the selected one is.
    pub fn place<R: Row>(&self, rows: &[&R]) -> Option<usize> {
        let chosen = self.chosen.as_ref();
        let chosen = chosen.and_then(|key| rows.iter().position(|row| row.key() == *key));
        let last = rows.len().checked_sub(1)?;
        Some(chosen.unwrap_or(self.at.min(last)))
    }

    fn go<'a, R: Row + 'a>(
        &mut self,
        rows: impl IntoIterator<Item = &'a R>,
        steps: isize,
        first_too: bool,
    ) {
        let rows = self.rows(rows);
        let Some(place) = self.place(&rows) else { return };
        self.at = place.saturating_add_signed(steps).min(rows.len() - 1);
        self.chosen = (self.at > 0 || first_too).then(|| rows[self.at].key());
    }
}

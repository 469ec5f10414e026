//! What would become of packets, as `gwlb explain` has it.

use gwlb::control::recognise;
use gwlb::dataplane::explain::{Explanation, Given, Question, Surroundings, explain};
use gwlb::dataplane::keys::Keys;
use gwlb::dataplane::verdict::WorkerId;
use router::Attachment;

use super::Gateway;
use super::exits::source_port;

impl Gateway {
    /// What would become of this packet now. The gateway is none the wiser.
    ///
    /// # Panics
    /// If its workers do not agree in what the configuration is.
    pub fn explain(&mut self, given: Given) -> Explanation {
        let now = self.now();
        let question = Question::new(&self.exits.snapshot, &self.fragments, given, now);
        let owners = question.owners().map(|owner| &self.workers[usize::from(owner.0)]);
        let excerpts = owners.map(|owner| owner.ingress.excerpt(question.flows())).collect();
        let fragments = question.fragments(&self.fragments);
        explain(&question, excerpts, fragments, &Names(self), now).expect("one configuration")
    }
}

struct Names<'a>(&'a Gateway);

impl Surroundings for Names<'_> {
    fn device(&self, at: Attachment) -> Option<String> {
        Some(self.0.device(at).to_owned())
    }

    fn is_own_probe(&self, keys: &Keys, payload: &[u8]) -> bool {
        recognise(keys, payload).is_some()
    }

    fn source_port(&self, worker: WorkerId, port: u16) -> Option<u16> {
        Some(source_port(worker, port, self.0.exits.snapshot.workers))
    }
}

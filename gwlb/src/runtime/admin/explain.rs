//! `/v1/explain`: what would become of a packet in the running gateway, step by step, told without
//! sending it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use geneve::inner::{TcpFlags, protocol};
use geneve::outer;
use netio::offload::Offload;
use router::trace::{Protocol, UnknownProtocol};
use router::{Attachment, Entry};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Served;
use super::intake::{self, MAX_JSON, Query};
use super::problem::{Problem, Refusals};
use crate::config::{AttachmentSettings, Settings};
use crate::control::recognise;
use crate::dataplane::Ingress;
use crate::dataplane::explain::{
    Explanation, Given, Made, NotMade, Question, Surroundings, Unexplained, as_the_kernel_gives,
    explain, flags,
};
use crate::dataplane::ingress::Excerpt;
use crate::dataplane::keys::Keys;
use crate::dataplane::snapshot::Snapshot;
use crate::dataplane::verdict::WorkerId;
use crate::runtime::inquiry::{self, Inquiry};
use crate::runtime::{clock, underlay};

/// How long a worker may take to answer: it does so after its batch.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many may have packets explained at a time; others wait. Each asks a worker once at a time, so
/// that there always is room for the questions of others.
pub(super) const EXPLANATIONS: usize = 8;
/// How often it is asked again if the configuration changes meanwhile.
const TRIES: usize = 5;

pub(super) fn router() -> OpenApiRouter<Served> {
    OpenApiRouter::new().routes(routes!(explain_packet))
}

/// A packet that nobody sends: its bytes, or what it is like.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ExplainRequest {
    /// Where it enters: `internet_gateway:NAME`, `subnet:NAME`, `endpoint:NAME`, … Not needed for
    /// bytes that are Geneve between the gateway and an appliance.
    #[serde(default)]
    from: Option<String>,
    /// The IP packet in hexadecimal digits; nothing of what follows is to be said then.
    #[serde(default)]
    packet: Option<String>,
    /// The address that it comes from.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    source: Option<IpAddr>,
    /// The address that it is for.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    destination: Option<IpAddr>,
    /// Its protocol: `tcp` (the default), `udp`, `icmp`, `icmpv6` or a number.
    #[serde(default)]
    protocol: Option<String>,
    /// The port that it comes from.
    #[serde(default)]
    source_port: Option<u16>,
    /// The port that it goes to.
    #[serde(default)]
    destination_port: Option<u16>,
    /// TCP flags, such as `syn` (the default) or `syn,ack`.
    #[serde(default)]
    flags: Option<String>,
    /// Its length in bytes; without it, it has no payload.
    #[serde(default)]
    length: Option<u16>,
    /// IPv4: whether routers may cut it.
    #[serde(default)]
    may_fragment: bool,
    /// Whether its way is told in words, too: `text` of the answer.
    #[serde(default)]
    text: bool,
}

/// What would become of a packet.
#[derive(Debug, Serialize, ToSchema)]
struct ExplainAnswer {
    /// Step by step.
    explanation: Explanation,
    /// The same in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// Tells what would become of a packet now, in the running gateway, with the flows that there are:
/// route tables, flow, target and why that one, bytes to the appliance, the check of what comes back,
/// and where it leaves or why it is dropped. Nothing is sent, and nothing counted.
#[utoipa::path(
    post,
    path = "/v1/explain",
    tag = "routing",
    request_body = ExplainRequest,
    responses(
        (status = 200, body = ExplainAnswer),
        Refusals,
    ),
)]
async fn explain_packet(
    State(served): State<Served>,
    query: Query,
    request: Request,
) -> Result<Json<ExplainAnswer>, Problem> {
    query.only(&[])?;
    let (parts, body) = request.into_parts();
    let body = intake::body(&parts.headers, body, MAX_ASKED, served.limits).await?;
    let asked: ExplainRequest = intake::json(&parts.headers, &body)?;
    let _place = served.explanations.acquire().await;
    for _ in 0..TRIES {
        if let Some(explanation) = attempt(&served, &asked).await? {
            let text = asked.text.then(|| explanation.to_string());
            return Ok(Json(ExplainAnswer { explanation, text }));
        }
    }
    Err(unavailable("the configuration changes faster than it can be asked about"))
}

/// The largest body: the longest packet in hexadecimal digits, and what else there is to say.
const MAX_ASKED: usize = 2 * 65_535 + MAX_JSON;

fn unavailable(detail: &str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
}

/// `None`: the configuration has changed meanwhile.
async fn attempt(served: &Served, asked: &ExplainRequest) -> Result<Option<Explanation>, Problem> {
    let shared = &served.shared;
    if shared.is_draining() {
        return Err(unavailable("the gateway is shutting down"));
    }
    let view = Arc::clone(&shared.exchange.published.load_full().snapshot);
    let settings = shared.settings.load_full();
    let given = given(asked, &view, &settings)?;
    let question = Arc::new(Question::new(&view, &shared.fragments, given, clock::now()));
    let mut answers = Vec::new();
    for owner in question.owners() {
        let (reply, answer) = oneshot::channel();
        let ask = Ask { question: Arc::clone(&question), reply: Some(reply) };
        let asked = shared.inquire(owner, Box::new(ask));
        asked.map_err(|_| unavailable("too many ask the workers at once; ask again"))?;
        answers.push((owner, answer));
    }
    let mut excerpts = Vec::new();
    for (owner, answer) in answers {
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        let silent = || unavailable(&format!("worker {} does not answer; ask again", owner.0));
        excerpts.push(answer.ok().and_then(Result::ok).ok_or_else(silent)?);
    }
    let fragments = question.fragments(&shared.fragments);
    let around = Around { settings: &settings, workers: view.workers };
    match explain(&question, excerpts, fragments, &around, clock::now()) {
        Ok(explanation) => Ok(Some(explanation)),
        Err(Unexplained::Changed) => Ok(None),
        Err(error @ Unexplained::Memory) => Err(unavailable(&error.to_string())),
    }
}

/// Asks a worker what it knows.
struct Ask {
    question: Arc<Question>,
    reply: Option<oneshot::Sender<Excerpt>>,
}

impl Inquiry for Ask {
    fn serve(&mut self, ingress: &Ingress, _: Instant) -> inquiry::Served {
        if let Some(reply) = self.reply.take() {
            // Whoever asked may be gone.
            let _ = reply.send(ingress.excerpt(self.question.flows()));
        }
        inquiry::Served::Entirely
    }
}

struct Around<'a> {
    settings: &'a Settings,
    workers: u16,
}

impl Surroundings for Around<'_> {
    fn device(&self, at: Attachment) -> Option<String> {
        attachment(self.settings, at).map(|it| it.tun.to_string())
    }

    fn is_own_probe(&self, keys: &Keys, payload: &[u8]) -> bool {
        recognise(keys, payload).is_some()
    }

    fn source_port(&self, worker: WorkerId, port: u16) -> Option<u16> {
        Some(underlay::source_port(worker.0, port, self.workers))
    }
}

/// The packet that is asked about.
fn given(asked: &ExplainRequest, view: &Snapshot, settings: &Settings) -> Result<Given, Problem> {
    let packet = match &asked.packet {
        Some(digits) => {
            let said = asked.source.is_some()
                || asked.destination.is_some()
                || asked.protocol.is_some()
                || asked.source_port.is_some()
                || asked.destination_port.is_some()
                || asked.flags.is_some()
                || asked.length.is_some()
                || asked.may_fragment;
            if said {
                let detail = "packet says all there is to say; leave the other fields out";
                return Err(Problem::bad("packet", detail));
            }
            bytes(digits).map_err(|detail| Problem::bad("packet", detail))?
        }
        None => made(asked)?,
    };
    let Some(from) = &asked.from else {
        return returned(&packet, view).ok_or_else(|| {
            Problem::bad("from", "from is needed: the place where the packet enters")
        });
    };
    let at: Entry =
        view.topology.entry(from).map_err(|error| Problem::bad("from", error.to_string()))?;
    // A device without offload gives nothing that is longer than its MTU.
    let device = at.attachment().and_then(|at| attachment(settings, at)).filter(|it| it.offload);
    let offload = device.map_or(Offload::NONE, |it| as_the_kernel_gives(&packet, it.mtu.get()));
    Ok(Given::Entering { at, packet, offload })
}

/// What is configured at a place.
fn attachment(settings: &Settings, at: Attachment) -> Option<&AttachmentSettings> {
    let exits = settings.exits();
    let found = exits.iter().find(|(known, _)| *known == at);
    found.map(|(_, attachment)| &settings.attachments[*attachment])
}

/// What an appliance sends to the gateway; or what the gateway sends to an appliance, which is taken
/// to come back.
fn returned(packet: &[u8], view: &Snapshot) -> Option<Given> {
    let (outer, payload) = outer::parse(packet).ok()?;
    let datagram = packet[payload].to_vec();
    let is_node = |ip: IpAddr| view.pools.iter().any(|pool| pool.address == ip);
    let goes_out = is_node(outer.src.ip()) && !is_node(outer.dst.ip());
    if !goes_out && outer.dst.port() != geneve::PORT {
        return None;
    }
    let (from, to) = if goes_out { (outer.dst, outer.src) } else { (outer.src, outer.dst) };
    Some(Given::Returning { from, to: to.ip(), datagram })
}

fn made(asked: &ExplainRequest) -> Result<Vec<u8>, Problem> {
    let needed = |field: &'static str| {
        move || Problem::bad(field, format!("{field} is needed, or the bytes of the packet"))
    };
    let destination = asked.destination.ok_or_else(needed("destination"))?;
    let source = asked.source.ok_or_else(needed("source"))?;
    let protocol = match &asked.protocol {
        None => protocol::TCP,
        Some(name) => {
            let parsed: Result<Protocol, UnknownProtocol> = name.parse();
            parsed.map_err(|error| Problem::bad("protocol", error.to_string()))?.0
        }
    };
    let has_ports = [protocol::TCP, protocol::UDP].contains(&protocol);
    let port = |port: Option<u16>, field: &'static str| match port {
        Some(_) if !has_ports => {
            Err(Problem::bad(field, format!("protocol {protocol} has no ports")))
        }
        None if has_ports => Err(Problem::bad(field, format!("{field} is needed"))),
        port => Ok(port.unwrap_or_default()),
    };
    let flags = match &asked.flags {
        None => TcpFlags::SYN,
        Some(_) if protocol != protocol::TCP => {
            return Err(Problem::bad("flags", "only TCP has flags"));
        }
        Some(text) => flags(text).map_err(|word| {
            let known = "fin, syn, rst, psh, ack, urg, ece and cwr";
            Problem::bad("flags", format!("{word:?} is no TCP flag; there are {known}"))
        })?,
    };
    let made = Made {
        source: SocketAddr::new(source, port(asked.source_port, "source_port")?),
        destination: SocketAddr::new(
            destination,
            port(asked.destination_port, "destination_port")?,
        ),
        protocol,
        flags,
        length: asked.length,
        dont_fragment: !asked.may_fragment,
    };
    made.bytes().map_err(|error| {
        let field = match error {
            NotMade::Mixed(_) => "source",
            NotMade::Short(_) => "length",
        };
        Problem::bad(field, error.to_string())
    })
}

/// Bytes from hexadecimal digits; spaces, colons and line ends between them mean nothing.
fn bytes(digits: &str) -> Result<Vec<u8>, String> {
    let mut values = Vec::with_capacity(digits.len());
    for character in digits.chars().filter(|it| !it.is_whitespace() && *it != ':') {
        let value = character.to_digit(16);
        values.push(value.ok_or_else(|| format!("{character:?} is no hexadecimal digit"))? as u8);
    }
    let (pairs, rest) = values.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(format!("{} hexadecimal digits are no whole bytes", values.len()));
    }
    if pairs.is_empty() || pairs.len() > usize::from(u16::MAX) {
        return Err(format!("a packet has 1 to 65535 bytes, and this has {}", pairs.len()));
    }
    Ok(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::super::testing::Api;
    use super::*;
    use crate::runtime::inquiry::INQUIRIES;

    /// Keeps a worker busy until it is dropped elsewhere.
    struct Busy(mpsc::Receiver<()>);

    impl Inquiry for Busy {
        fn serve(&mut self, _: &Ingress, _: Instant) -> inquiry::Served {
            let _ = self.0.recv();
            inquiry::Served::Entirely
        }
    }

    #[test]
    fn a_crowd_that_has_packets_explained_leaves_room_for_the_questions_of_others() {
        let api = Api::start();
        let body = r#"{"from": "internet_gateway:igw", "source": "203.0.113.7",
                       "destination": "10.0.1.11", "source_port": 1, "destination_port": 2}"#;
        let (busy, wait) = mpsc::channel();
        api.shared.inquire(WorkerId(0), Box::new(Busy(wait))).unwrap();
        std::thread::scope(|scope| {
            let explain = || api.json("POST", "/v1/explain", body).0;
            let crowd: Vec<_> = (0..INQUIRIES + 16).map(|_| scope.spawn(explain)).collect();
            // They all ask meanwhile.
            std::thread::sleep(Duration::from_millis(300));
            let (over, other) = mpsc::channel();
            let asked = api.shared.inquire(WorkerId(0), Box::new(Busy(other)));
            drop((busy, over));
            assert_eq!(asked, Ok(()), "nobody else can ask");
            for answer in crowd {
                assert_eq!(answer.join().unwrap(), 200);
            }
        });
    }

    #[test]
    fn digits_are_read() {
        assert_eq!(bytes("45 0a\nfF:00"), Ok(vec![0x45, 0x0a, 0xff, 0]));
        for (wrong, said) in [("4", "no whole bytes"), ("4g", "'g'"), (" ", "1 to 65535")] {
            assert!(bytes(wrong).unwrap_err().contains(said));
        }
    }
}

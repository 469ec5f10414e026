//! What fuzzers begin with: captures of the corpus, files of other tests, and a few things built
//! here. Written by `.ci/fuzz` into a folder beside the build, never into the repository.

use std::fs;
use std::path::{Path, PathBuf};

use geneve::{Dialect, Tags};
use gwlb_tests::corpus::{self, captures, geneve_datagram, inner_packet};
use gwlb_tests::packets::{Ip, Problem, Tcp, fragments};
use rtnetlink::packet_core::NetlinkMessage;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage, Stats64};

/// The folder to write to.
const VARIABLE: &str = "GWLB_FUZZ_SEEDS";

/// Longer ones slow down more than they tell.
const LONGEST: usize = 4096;

/// So many of a kind, spread over all that there are.
const MOST: usize = 400;

#[test]
#[ignore = "writes files for fuzzers; run by .ci/fuzz, or GWLB_FUZZ_SEEDS=DIR cargo test -p gwlb-tests --test fuzz -- --ignored seeds::write"]
fn write() {
    let Some(folder) = std::env::var_os(VARIABLE).map(PathBuf::from) else { return };
    let seeds = Seeds { folder };
    seeds.wire();
    seeds.programs();
    seeds.texts();
    seeds.kernel();
    seeds.captures();
    seeds.dictionary();
}

struct Seeds {
    folder: PathBuf,
}

impl Seeds {
    fn save(&self, harness: &str, seeds: impl IntoIterator<Item = Vec<u8>>) {
        let folder = self.folder.join(harness);
        fs::create_dir_all(&folder).unwrap();
        let all: Vec<_> = seeds.into_iter().filter(|seed| seed.len() <= LONGEST).collect();
        for seed in all.iter().step_by(all.len().div_ceil(MOST).max(1)) {
            fs::write(folder.join(&blake3::hash(seed).to_hex()[..16]), seed).unwrap();
        }
    }

    /// The same for a few that were built here to tell something: they go into the repository.
    fn keep(&self, harness: &str, seeds: impl IntoIterator<Item = Vec<u8>>) {
        let folder = self.folder.join(harness);
        fs::create_dir_all(&folder).unwrap();
        for seed in seeds {
            let name = format!("seed-{}", &blake3::hash(&seed).to_hex()[..16]);
            fs::write(folder.join(name), seed).unwrap();
        }
    }

    fn wire(&self) {
        let outer: Vec<_> =
            captures("geneve").into_iter().flatten().flat_map(|file| file.packets()).collect();
        let datagrams: Vec<_> =
            outer.iter().filter_map(|packet| Some(geneve_datagram(packet)?.to_vec())).collect();
        let headers = Dialect::ALL.iter().map(|dialect| {
            let mut header = vec![0; dialect.header_len()];
            let tags = Tags { endpoint: 1 << 60, attachment: 2, cookie: 3 };
            dialect.write(&tags, geneve::ProtocolType::IPV4, &mut header).unwrap();
            header
        });
        let headers: Vec<_> = headers.collect();
        for harness in ["wire__header", "wire__dialects"] {
            self.save(harness, datagrams.iter().cloned());
            self.keep(harness, headers.iter().flat_map(|header| odd_headers(header)));
        }
        self.save("wire__outer_headers", outer);
        let inner = captures("inner").into_iter().flatten().flat_map(|file| file.packets());
        let carried = datagrams.iter().filter_map(|datagram| inner_packet(datagram));
        let packets: Vec<_> = inner.chain(carried).chain(built()).collect();
        self.save("wire__inner_packets", packets.iter().cloned());
        self.keep("wire__inner_packets", built());
        let quoted = |packet: &Vec<u8>| {
            let kind = if packet.first().is_some_and(|byte| byte >> 4 == 6) { 1 } else { 3 };
            [&[u8::from(kind == 1), kind, 0], &packet[..]].concat()
        };
        self.save("wire__icmp_errors", packets.iter().map(quoted));
        let offloaded =
            |packet: &Vec<u8>| [&[0, 100, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0], &packet[..]].concat();
        self.save("offload__segmenting", packets.iter().map(offloaded));
        let returned = |packet: &Vec<u8>| [&[1], &packet[..]].concat();
        let whole = headers.iter().map(|header| [&[0], &header[..], &built()[0]].concat());
        self.save("gateway__returns", packets.iter().map(returned).chain(whole));
    }

    /// For harnesses that read their bytes as a program any bytes are a beginning.
    fn programs(&self) {
        let harnesses = [
            "appliances__ids_stream",
            "appliances__inspected_packets",
            "fragments__cutting",
            "fragments__table",
            "gateway__histories",
            "kernel__virtio_headers",
            "offload__coalescing",
            "session__datagrams",
        ];
        for harness in harnesses {
            let noise = (0..32_u8).map(|number| {
                let mut noise = vec![0; 64 << (number % 4)];
                let mut reader = blake3::Hasher::new().update(&[number]).finalize_xof();
                reader.fill(&mut noise);
                noise
            });
            self.save(harness, noise);
        }
    }

    fn texts(&self) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let folders = ["gwlb/examples", "gwlb/tests/wrong", "router/tests", "tests/scenarios"];
        let mut files = Vec::new();
        for folder in folders {
            toml_files(&root.join(folder), &mut files);
        }
        let files: Vec<_> = files.iter().map(|path| fs::read(path).unwrap()).collect();
        self.save("config__gateway_file", files.iter().cloned());
        self.save("config__router_file", files.iter().cloned());

        let scenarios = fs::read(root.join("tests/scenarios/gateway.toml")).unwrap();
        let requests =
            (0..7_u8).flat_map(|method| (0..12_u8).map(move |path| [method, path, 0, 0, 0]));
        self.save("admin__requests", requests.map(|request| request.to_vec()));
        let bodies = [
            program([1, 4, 0], br#"{"zone": "az1", "weight": 7}"#),
            program([1, 5, 0], br#"{"zone": "az2"}"#),
            program([1, 7, 0], br#"{"mode": "bypass"}"#),
            program([2, 8, 1], &scenarios),
            program([2, 8, 1], b"[[vpc]]\nname = 7\n"),
        ];
        self.keep("admin__requests", bodies);
        let connections: [&[u8]; 5] = [
            b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n",
            b"GET /v1/status HTTP/1.0\r\n\r\n",
            b"PUT /v1/target-groups/fw/targets/192.0.2.9 HTTP/1.1\r\nhost: x\r\n\
              content-type: application/json\r\ncontent-length: 16\r\n\r\n{\"zone\": \"az1\"}\n",
            b"POST /v1/reload?dry_run=true HTTP/1.1\r\nhost: x\r\ncontent-type: application/toml\r\n\
              transfer-encoding: chunked\r\n\r\n5\r\n[vpc]\r\n0\r\n\r\n",
            b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\nGET /metrics HTTP/1.1\r\nhost: x\r\n\r\n",
        ];
        self.keep("admin__connections", connections.map(<[u8]>::to_vec));
        let answers: [&[u8]; 5] = [
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            b"HTTP/1.0 302 Found\r\nlocation: /\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\n\r\n",
            b"HTTP/1.1 200\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"HTTP/1.1 299 x\r\n bad header\r\n\xff: \xfe\r\n\r\n",
        ];
        self.keep("probes__http_answers", answers.map(<[u8]>::to_vec));
        let rules = "default = \"deny\"\ndeny_by = \"reject\"\ninside = [\"10.0.0.0/8\"]\n\
            pick_up = true\n[[rule]]\nname = \"web\"\naction = \"allow\"\nto = [\"10.0.1.0/24\"]\n\
            protocol = \"tcp\"\nports = [80, \"8000-8099\"]\ndirection = \"inbound\"\n[[rule]]\n\
            action = \"deny\"\nfrom = [\"2001:db8::/32\"]\nsource_ports = [1]\nprotocol = 17\n";
        self.keep("appliances__firewall_rules", [rules.into()]);
        let patterns = "\0[[pattern]]\nname = \"text\"\ntext = \"needle\"\nignore_case = true\n\
            [[pattern]]\nname = \"bytes\"\nhex = \"DE ad be ef\"\naction = \"alert\"\n";
        self.keep("appliances__ids_patterns", [patterns.into()]);
    }

    fn kernel(&self) {
        let mut link = LinkMessage::default();
        link.header.index = 7;
        link.attributes = vec![
            LinkAttribute::IfName("gwlb0".to_owned()),
            LinkAttribute::Mtu(1500),
            LinkAttribute::GsoMaxSize(65_536),
            LinkAttribute::Stats64(Stats64::default()),
        ];
        let mut address = rtnetlink::packet_route::address::AddressMessage::default();
        address.header.prefix_len = 24;
        let attribute = rtnetlink::packet_route::address::AddressAttribute::Address;
        address.attributes = vec![attribute([192, 0, 2, 1].into())];
        let message = |message: RouteNetlinkMessage| {
            let mut message = NetlinkMessage::from(message);
            message.finalize();
            let mut bytes = vec![0; message.buffer_len()];
            message.serialize(&mut bytes);
            bytes
        };
        let (link, address) = (
            message(RouteNetlinkMessage::NewLink(link)),
            message(RouteNetlinkMessage::NewAddress(address)),
        );
        let both = [&link[..], &address].concat();
        // ENODEV, about a message of which the header is quoted.
        let mut error =
            vec![36, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xed, 0xff, 0xff, 0xff];
        error.extend_from_slice(&link[..16]);
        self.keep("kernel__netlink_replies", [link, address, both, error]);
        let control = |level: i32, kind: i32, data: &[u8]| {
            let len = 16 + data.len();
            let mut bytes = len.to_ne_bytes().to_vec();
            bytes.extend(level.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(data);
            bytes.resize(len.next_multiple_of(8), 0);
            bytes
        };
        let four = [
            control(0, 8, &[0, 0, 0, 0, 1, 2, 3, 4, 192, 0, 2, 1]),
            control(0, 1, &[3]),
            control(17, 104, &1400_i32.to_ne_bytes()),
        ];
        let six = [control(41, 50, &[1; 20]), control(41, 67, &3_i32.to_ne_bytes())];
        self.keep("kernel__control_messages", [four.concat(), six.concat()]);
        let mut error = vec![90, 0, 0, 0, 2, 3, 4, 0, 0x78, 5, 0, 0, 0, 0, 0, 0];
        error.extend([2, 0, 0, 0, 192, 0, 2, 254, 0, 0, 0, 0, 0, 0, 0, 0]);
        self.keep("kernel__socket_errors", [error]);
    }

    fn captures(&self) {
        let root = corpus::root();
        let files = ["geneve", "inner"].map(|folder| fs::read_dir(root.join(folder)));
        let files = files.into_iter().flatten().flatten().map(|entry| entry.unwrap().path());
        let begins = files.map(|path| {
            let mut bytes = fs::read(path).unwrap();
            bytes.truncate(LONGEST);
            bytes
        });
        self.save("pcap__captures", begins);
    }

    /// The words of configuration files, in libFuzzer's form.
    fn dictionary(&self) {
        let schema = serde_json::to_value(gwlb::config::schema()).unwrap();
        let mut words = Vec::new();
        collect_words(&schema, &mut words);
        words.sort();
        words.dedup();
        let lines: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
        fs::write(self.folder.join("words.dict"), lines.join("\n")).unwrap();
    }
}

/// A dialect's header, and what is wrong with it or not: each option once more, each missing, one
/// that nobody knows, and one that must be known.
fn odd_headers(header: &[u8]) -> Vec<Vec<u8>> {
    let mut found = vec![header.to_vec()];
    let (read, _) = geneve::Header::parse(header).unwrap();
    let options: Vec<_> = read.options().collect();
    let mut write = |options: &[geneve::GeneveOption<'_>]| {
        let mut bytes = [0; geneve::header::MAX_LEN];
        let builder = geneve::HeaderBuilder::new(read.protocol()).options(options);
        let len = builder.write(&mut bytes).unwrap();
        found.push(bytes[..len].to_vec());
    };
    for (index, option) in options.iter().enumerate() {
        write(&[&options[..], &[*option]].concat());
        write(&[&options[..index], &options[index + 1..]].concat());
        let kind = geneve::OptionType::new(option.kind.get() | 0x80);
        write(&[&options[..], &[geneve::GeneveOption { kind, ..*option }]].concat());
    }
    let strange = geneve::OptionClass::new(0xfff0);
    write(&[&options[..], &[geneve::GeneveOption { class: strange, ..options[0] }]].concat());
    found
}

/// Packets of every sort that the gateway treats in a way of its own.
fn built() -> Vec<Vec<u8>> {
    let pairs = [("203.0.113.7", "10.0.1.11"), ("2001:db8:113::7", "fd00:10:0:1::11")];
    let mut packets = Vec::new();
    for (src, dst) in pairs {
        let ip = Ip::new(src, dst);
        let udp = ip.udp((1000, 53), &[7; 100]);
        packets.extend([
            ip.tcp((1000, 80), Tcp::SYN.mss(1460), &[]),
            ip.tcp((1000, 80), Tcp::DATA, b"data"),
            ip.echo_request(1, 2),
            ip.reversed().icmp_error(Problem::TooBig(1300), &udp, 200),
            ip.clone().options(&[1, 1, 1, 0]).extensions().udp((1, 2), b"options"),
            ip.protocol(47, b"gre"),
        ]);
        packets.extend(fragments(&udp, 9, 48));
        packets.push(udp);
    }
    packets
}

/// A step of three bytes, and a body with its length.
fn program(step: [u8; 3], body: &[u8]) -> Vec<u8> {
    [&step[..], &(body.len() as u16).to_be_bytes(), body].concat()
}

fn toml_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            toml_files(&path, files);
        } else if path.extension().is_some_and(|kind| kind == "toml") {
            files.push(path);
        }
    }
    files.sort();
}

fn collect_words(schema: &serde_json::Value, words: &mut Vec<String>) {
    match schema {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                if key == "properties" {
                    words.extend(value.as_object().into_iter().flat_map(|map| map.keys().cloned()));
                }
                if key == "enum" || key == "const" || key == "default" {
                    let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
                    words
                        .extend(values.iter().filter_map(|value| Some(value.as_str()?.to_owned())));
                }
                collect_words(value, words);
            }
        }
        serde_json::Value::Array(values) => {
            for value in values {
                collect_words(value, words);
            }
        }
        _ => {}
    }
}

//! The server on a host of its own, a network namespace. A packet filter can cut off all
//! agencies or some of them, without notifying either side.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rand::RngExt as _;
use sorteo_test_support::process::wait_for;

use crate::crowd::{Crowd, batch_of, frame};
use crate::history::History;
use crate::observed::{Observed, closed_for, conclude};
use crate::program::Program;
use crate::witness::Witness;
use crate::workplace::{Run, Workplace, count};

/// Batches of each agency, and how often the server cannot be reached meanwhile.
const BATCHES: u64 = 30;
const OUTAGES: usize = 6;
const OUTAGE_MS_MAX: u64 = 500;
/// Peers of each kind that are cut off for good.
const LOST: usize = 10;

/// Namespaces and packet filters need their tools, and root.
pub fn missing() -> Option<&'static str> {
    let works = |program: &str, words: &[&str]| {
        Command::new(program).args(words).output().is_ok_and(|output| output.status.success())
    };
    let all = works("ip", &["netns", "list"]) && works("unshare", &["--net", "nft", "list", "tables"]);
    (!all).then_some("ip, nft and root are needed")
}

/// The server is unreachable again and again: packets are dropped, or answered by resets that
/// it does not see. Afterwards all agencies go on, and there is one draw.
pub fn a_server_out_of_reach(run: &Run) {
    for workplace in run.rounds(1) {
        let host = Host::new();
        let crowd = Crowd::mixed(BATCHES);
        let server = host.program(&workplace).with("--agencies", crowd.dialects.len()).start();
        let mut rng = workplace.rng(0);
        let agencies = crowd.start(server.address, &workplace);
        for outage in 1..=OUTAGES {
            agencies.wait_acknowledged(outage as u64 * crowd.operations() / (OUTAGES as u64 + 1));
            host.filter(if rng.random() { "drop" } else { "meta l4proto tcp reject with tcp reset" });
            // The duration of the fault.
            thread::sleep(Duration::from_millis(rng.random_range(0..OUTAGE_MS_MAX)));
            host.filter("accept");
            count("times that the server was out of reach", 1);
        }
        let history = agencies.join();
        conclude(server, &history, &workplace);
    }
}

/// Peers that vanish without a packet, before they confirm the replies: each is closed at its
/// deadline, and another peer is served.
pub fn peers_out_of_reach(run: &Run) {
    for workplace in run.rounds(1) {
        let host = Host::new();
        let history = Arc::new(History::default());
        let program = host.program(&workplace).with("--agencies", 2);
        let server = program.with("--request-timeout", 1).with("--idle-timeout", 2).start();
        let mut witness = Witness::new(1, server.address, &history);
        let open_before = Observed::of(&server).open_files();
        let half = batch_of("BATCH|2|2", &["Ana|Paz|1|1999-03-17|1".to_owned()]);
        let status = frame("STATUS");
        let idle: Vec<TcpStream> = (0..LOST).map(|_| speak(server.address, &status)).collect();
        let sending: Vec<TcpStream> = (0..LOST).map(|_| speak(server.address, &half)).collect();
        host.cut_off(idle.iter().chain(&sending));
        // The replies to these may never be confirmed.
        idle.iter().for_each(|mut peer| peer.write_all(&status).unwrap());
        wait_for("the end of all that are gone", || {
            witness.send(1);
            let closed = (closed_for(&server, "idle_timeout"), closed_for(&server, "request_timeout"));
            (closed == (LOST, LOST)).then_some(())
        });
        wait_for("their sockets' return", || {
            witness.send(1);
            (Observed::of(&server).open_files() <= open_before).then_some(())
        });
        count("peers out of reach closed", 2 * LOST as u64);
        conclude(server, &history, &workplace);
    }
}

fn speak(server: SocketAddr, words: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.write_all(words).unwrap();
    stream
}

/// A host behind a cable. Dropped, both are gone.
struct Host {
    name: String,
    address: IpAddr,
}

impl Host {
    /// Of the networks for benchmarks (RFC 2544), a small one that nobody has. The
    /// seed does not choose it: tests with the same seed run at the same time.
    fn new() -> Self {
        let mut rng = rand::rng();
        wait_for("a free network", || {
            let (third, fourth) = (rng.random(), rng.random_range(0..64) * 4);
            let [ours, theirs] = [1, 2].map(|last| Ipv4Addr::new(198, 18, third, fourth + last));
            let name = format!("sf-{third}-{fourth}");
            // A namespace of that name that exists belongs to another process.
            ip(&format!("netns add {name}")).ok()?;
            let host = Self { name, address: theirs.into() };
            host.connect(ours).ok().map(|()| host)
        })
    }

    fn connect(&self, ours: Ipv4Addr) -> Result<(), String> {
        let Self { name, address } = self;
        ip(&format!("link add {name} type veth peer name cable netns {name}"))?;
        ip(&format!("address add {ours}/30 dev {name}"))?;
        ip(&format!("link set {name} up"))?;
        ip(&format!("-n {name} address add {address}/30 dev cable"))?;
        ip(&format!("-n {name} link set cable up"))?;
        self.nft("add table inet faults")?;
        self.nft("add chain inet faults input { type filter hook input priority 0; }")
    }

    /// How to start a server there.
    fn program(&self, workplace: &Workplace) -> Program {
        let program = Program::new(workplace);
        let address = SocketAddr::new(self.address, program.address.port());
        program.at(address).started_by(&["ip", "netns", "exec", &self.name])
    }

    /// What becomes of every packet to it from now on.
    fn filter(&self, verdict: &str) {
        self.nft(&format!("flush chain inet faults input; add rule inet faults input {verdict}")).unwrap();
    }

    /// Nothing more of these peers arrives there.
    fn cut_off<'a>(&self, peers: impl Iterator<Item = &'a TcpStream>) {
        let mut ports = String::new();
        for peer in peers {
            write!(ports, "{},", peer.local_addr().unwrap().port()).unwrap();
        }
        self.filter(&format!("tcp sport {{ {ports} }} drop"));
    }

    fn nft(&self, rules: &str) -> Result<(), String> {
        run("ip", &["netns", "exec", &self.name, "nft", rules])
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Err(error) = ip(&format!("netns delete {}", self.name)) {
            eprintln!("{error}");
        }
    }
}

fn ip(words: &str) -> Result<(), String> {
    run("ip", &words.split(' ').collect::<Vec<&str>>())
}

fn run(program: &str, words: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(words).output().map_err(|error| error.to_string())?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{program} {words:?}: {complaint}")) }
}

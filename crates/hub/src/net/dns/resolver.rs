//! [`Resolver`].

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use super::cache::{Cache, Question};
use super::config::{Config, Hosts};
use super::exchange::{NO_SUCH_NAME, ask};
use super::message::{Data, Kind, Message};
use super::{Answer, HostEntry};
use crate::sync::{Event, Mutex};
use crate::{WaitOptions, hub, offload, spawn_raw, wait};

/// Once the addresses of one family are there, those of the other have this long: some servers never say that they
/// have none.
const RESOLUTION_DELAY: Duration = Duration::from_millis(300);
/// That a question failed is kept for so long, so that not everyone asks a broken server anew (RFC 9520 §3.2).
const FAILURE_TTL: Duration = Duration::from_secs(1);
/// Questions for one name when its aliases lead on and on.
const ALIASES_MAX: usize = 8;
/// Changes of the system's files are looked for this often only.
const RELOAD: Duration = Duration::from_secs(5);
const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

/// Looks up names, and keeps answers for as long as their servers allow. Cheap to clone: clones share what they know.
///
/// A question that another fiber has asked already is not asked again: both get the same answer.
#[derive(Clone)]
pub struct Resolver(Rc<Shared>);

struct Shared {
    source: Source,
    cache: Cache,
    running: RefCell<HashMap<Question, Rc<Flight>>>,
    /// Counts questions, so that servers take turns.
    turn: Cell<usize>,
}

enum Source {
    Fixed(Rc<Config>),
    /// The system's files, read again when they have changed.
    Files(Mutex<Option<Loaded>>),
    /// `getaddrinfo` on another thread.
    CLibrary,
}

struct Loaded {
    config: Rc<Config>,
    checked: Instant,
    versions: Versions,
}

/// When the files were last written; `None` for one that is not there.
type Versions = [Option<SystemTime>; 2];

/// A question that is being asked.
struct Flight {
    done: Event,
    answer: RefCell<Rc<Answer>>,
}

impl Resolver {
    /// By these settings.
    pub fn new(config: Config) -> Self {
        Self::of(Source::Fixed(Rc::new(config)))
    }

    /// By `/etc/resolv.conf` and `/etc/hosts`, which are read again when they change. What a hub has at first.
    pub fn from_files() -> Self {
        Self::of(Source::Files(Mutex::new(None)))
    }

    /// By the C library's `getaddrinfo`, on another thread: for names that only its modules know (mDNS, LDAP and others
    /// of `nsswitch.conf`). Keeps no answers, for it is not told how long they hold.
    pub fn c_library() -> Self {
        Self::of(Source::CLibrary)
    }

    fn of(source: Source) -> Self {
        let (cache, running, turn) = (Cache::default(), RefCell::default(), Cell::new(0));
        Self(Rc::new(Shared { source, cache, running, turn }))
    }

    /// The addresses of `host`, at least one, of the family that this machine has a way to first. An address stands for
    /// itself.
    ///
    /// # Suspends
    /// Until they are known.
    ///
    /// # Errors
    /// `NotFound` when there is no such name or it has no address; `InvalidInput` when it cannot be a name; `TimedOut`
    /// and others when no server could tell.
    pub fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(self.entry(host, &[Kind::A, Kind::Aaaa])?.addrs)
    }

    /// As [`lookup`](Self::lookup), with the host's proper name.
    pub(super) fn entry(&self, host: &str, kinds: &[Kind]) -> io::Result<HostEntry> {
        let alone = |addrs| HostEntry { name: host.to_owned(), aliases: Vec::new(), addrs };
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(alone(vec![ip]));
        }
        // A simulation knows its nodes as a machine knows its files: settings that were given come first.
        if !matches!(self.0.source, Source::Fixed(_))
            && let Some(answer) = hub::with(|hub| hub.driver.resolve(host))
        {
            return answer.map(alone).map_err(|error| about(host, &error));
        }
        let Some(config) = self.config()? else {
            let owned = host.to_owned();
            let found = offload(move || (owned.as_str(), 0).to_socket_addrs().map(Vec::from_iter));
            let found = found.map_err(|error| about(host, &error))?;
            return Ok(alone(found.iter().map(SocketAddr::ip).collect()));
        };
        let wanted = |ip: &&IpAddr| kinds.contains(&kind_of(ip));
        let known: Vec<IpAddr> = config.hosts.addrs(host).iter().filter(wanted).copied().collect();
        if let Some(first) = known.first() {
            let mut names = config.hosts.names(*first).to_vec();
            let name = if names.is_empty() { host.to_owned() } else { names.remove(0) };
            return Ok(HostEntry { name, aliases: names, addrs: known });
        }
        if is_localhost(host) {
            // Never asked of a server (RFC 6761 §6.3).
            let local: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            return Ok(alone(local.iter().filter(wanted).copied().collect()));
        }
        self.search(&config, host, kinds)
    }

    /// Asks for one name after the other that `host` may mean.
    fn search(&self, config: &Rc<Config>, host: &str, kinds: &[Kind]) -> io::Result<HostEntry> {
        let mut failure = None;
        for name in config.candidates(host) {
            let answers = self.answers(config, &name, kinds);
            let mut found = HostEntry { name, aliases: Vec::new(), addrs: Vec::new() };
            for answer in answers {
                match &*answer {
                    Answer::Found(entry) => {
                        found.name.clone_from(&entry.name);
                        found.aliases.clone_from(&entry.aliases);
                        found.addrs.extend(&entry.addrs);
                    }
                    Answer::Failed(kind, text) => {
                        failure = Some(io::Error::new(*kind, text.clone()))
                    }
                    Answer::NoName => {}
                }
            }
            if !found.addrs.is_empty() {
                prefer_reachable(&mut found.addrs);
                return Ok(found);
            }
            // Servers that are silent for this name are for the next one, too.
            if failure.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
                break;
            }
        }
        let failure = failure.unwrap_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "there is no such name, or it has no address")
        });
        Err(about(host, &failure))
    }

    /// Asks for all kinds at once.
    fn answers(&self, config: &Rc<Config>, name: &str, kinds: &[Kind]) -> Vec<Rc<Answer>> {
        let flights: Vec<_> = kinds.iter().map(|kind| self.ask(config, name, *kind)).collect();
        let found = |flight: &Rc<Flight>| matches!(**flight.answer.borrow(), Answer::Found(_));
        loop {
            let timeout = flights.iter().any(found).then_some(RESOLUTION_DELAY);
            let left: Vec<&Flight> = flights
                .iter()
                .map(|flight| &**flight)
                .filter(|flight| !flight.done.is_set())
                .collect();
            let events: Vec<&dyn crate::Waitable> =
                left.iter().map(|flight| &flight.done as &dyn crate::Waitable).collect();
            if events.is_empty() {
                break;
            }
            if wait(&events, WaitOptions { timeout, count: Some(1) }).is_empty() {
                break;
            }
        }
        flights.iter().map(|flight| flight.answer.borrow().clone()).collect()
    }

    /// What is known, or the question under way, or a new one.
    fn ask(&self, config: &Rc<Config>, name: &str, kind: Kind) -> Rc<Flight> {
        let question = (name.to_ascii_lowercase(), kind);
        let now = hub::with(|hub| hub.driver.now());
        if let Some(answer) = self.0.cache.find(&question, now) {
            let done = Event::new();
            done.set();
            return Rc::new(Flight { done, answer: RefCell::new(answer) });
        }
        if let Some(flight) = self.0.running.borrow().get(&question) {
            return flight.clone();
        }
        let unanswered = Answer::Failed(io::ErrorKind::TimedOut, "there is no answer yet".into());
        let flight =
            Rc::new(Flight { done: Event::new(), answer: RefCell::new(Rc::new(unanswered)) });
        self.0.running.borrow_mut().insert(question.clone(), flight.clone());
        let landing = Landing { shared: self.0.clone(), question, flight: flight.clone() };
        let config = config.clone();
        // On a fiber of its own: whoever asked first may be killed, and others wait for the same.
        spawn_raw(move || landing.fly(&config));
        flight
    }

    /// The names of an address.
    pub(super) fn reverse(&self, ip: IpAddr) -> io::Result<HostEntry> {
        let Some(config) = self.config()? else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the C library is asked for addresses only",
            ));
        };
        if let [name, aliases @ ..] = config.hosts.names(ip) {
            let (name, aliases) = (name.clone(), aliases.to_vec());
            return Ok(HostEntry { name, aliases, addrs: vec![ip] });
        }
        let answers = self.answers(&config, &reverse_name(ip), &[Kind::Ptr]);
        match &*answers[0] {
            Answer::Found(entry) => Ok(HostEntry { addrs: vec![ip], ..entry.clone() }),
            Answer::Failed(kind, text) => {
                Err(about(&ip.to_string(), &io::Error::new(*kind, text.clone())))
            }
            Answer::NoName => {
                let missing = io::Error::new(io::ErrorKind::NotFound, "the address has no name");
                Err(about(&ip.to_string(), &missing))
            }
        }
    }

    /// Forgets all answers.
    pub fn clear(&self) {
        self.0.cache.clear();
    }

    /// Answers that are kept.
    pub fn cached(&self) -> usize {
        self.0.cache.len()
    }

    /// The settings; `None` when the C library is asked.
    fn config(&self) -> io::Result<Option<Rc<Config>>> {
        let loaded = match &self.0.source {
            Source::Fixed(config) => return Ok(Some(config.clone())),
            Source::CLibrary => return Ok(None),
            Source::Files(loaded) => loaded,
        };
        // One fiber looks, the others wait for what it finds.
        let mut loaded = loaded.lock();
        let now = hub::with(|hub| hub.driver.now());
        let known = match &*loaded {
            Some(known) if now < known.checked + RELOAD => return Ok(Some(known.config.clone())),
            Some(known) => Some(known.versions),
            None => None,
        };
        let read = offload(move || read_files(known));
        match (read, &mut *loaded) {
            (None, Some(known)) => known.checked = now,
            (read, slot) => {
                let (config, versions) = read.unwrap_or_default();
                self.clear();
                *slot = Some(Loaded { config: Rc::new(config), checked: now, versions });
            }
        }
        Ok(loaded.as_ref().map(|loaded| loaded.config.clone()))
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("cached", &self.cached()).finish_non_exhaustive()
    }
}

/// Reads the system's files, if they are not those of `known`.
fn read_files(known: Option<Versions>) -> Option<(Config, Versions)> {
    let version = |path: &str| std::fs::metadata(path).and_then(|data| data.modified()).ok();
    let versions = [version(RESOLV_CONF), version(HOSTS)];
    if known == Some(versions) {
        return None;
    }
    // A file that is not there says nothing, as for the C library.
    let read = |path: &str| std::fs::read(path).unwrap_or_default();
    let mut config = Config::parse_resolv_conf(&String::from_utf8_lossy(&read(RESOLV_CONF)));
    config.hosts = Hosts::parse(&String::from_utf8_lossy(&read(HOSTS)));
    Some((config, versions))
}

/// Asks a question to its end, and tells all who wait for the answer.
struct Landing {
    shared: Rc<Shared>,
    question: Question,
    flight: Rc<Flight>,
}

impl Landing {
    fn fly(&self, config: &Config) {
        let first = self.shared.turn.get();
        self.shared.turn.set(first.wrapping_add(1));
        let first = if config.rotate { first } else { 0 };
        let (name, kind) = &self.question;
        let (answer, ttl) = match follow(config, first, name, *kind) {
            Ok(found) => found,
            Err(error) => (Answer::Failed(error.kind(), error.to_string()), FAILURE_TTL),
        };
        let bound = match answer {
            Answer::Found(_) => config.ttl_max,
            Answer::NoName | Answer::Failed(..) => config.negative_ttl_max,
        };
        let answer = Rc::new(answer);
        self.flight.answer.replace(answer.clone());
        let until = hub::with(|hub| hub.driver.now()) + ttl.min(bound);
        self.shared.cache.insert(self.question.clone(), answer, until, config.cache_entries_max);
    }
}

impl Drop for Landing {
    /// Also when the fiber is killed, at the hub's end.
    fn drop(&mut self) {
        self.shared.running.borrow_mut().remove(&self.question);
        self.flight.done.set();
    }
}

/// Asks for a name, and for what it is an alias of until there is an answer.
fn follow(config: &Config, first: usize, name: &str, kind: Kind) -> io::Result<(Answer, Duration)> {
    let mut entry = HostEntry { name: name.to_owned(), ..HostEntry::default() };
    let mut ttl_seconds = u32::MAX;
    for _ in 0..ALIASES_MAX {
        let asked = entry.name.clone();
        let message = ask(config, first, &asked, kind)?;
        walk(&message, &mut entry, &mut ttl_seconds);
        let ttl = |seconds: u32| Duration::from_secs(seconds.into());
        if collect(&message, &mut entry, &mut ttl_seconds, kind) {
            return Ok((Answer::Found(entry), ttl(ttl_seconds)));
        }
        if message.code == NO_SUCH_NAME || entry.name == asked {
            // How long that holds (RFC 2308 §5); for a server that does not say, not at all.
            let zone = message.authorities.iter().find_map(|record| match record.data {
                Data::Soa(minimum) => Some(minimum.min(record.ttl)),
                _ => None,
            });
            return Ok((Answer::NoName, ttl(zone.unwrap_or(0).min(ttl_seconds))));
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "its aliases lead on and on"))
}

/// Follows the aliases within one message. Each is followed once, so circles end.
fn walk(message: &Message, entry: &mut HostEntry, ttl_seconds: &mut u32) {
    for _ in 0..message.answers.len() {
        let alias = message.answers.iter().find_map(|record| match &record.data {
            Data::Cname(target) if record.name.eq_ignore_ascii_case(&entry.name) => {
                Some((target, record.ttl))
            }
            _ => None,
        });
        let Some((target, ttl)) = alias else { return };
        if entry.aliases.contains(target) || entry.name == *target {
            return;
        }
        *ttl_seconds = ttl.min(*ttl_seconds);
        entry.aliases.push(std::mem::replace(&mut entry.name, target.clone()));
    }
}

/// Takes the records of the name that was asked for, behind its aliases. Whether there are any.
fn collect(message: &Message, entry: &mut HostEntry, ttl_seconds: &mut u32, kind: Kind) -> bool {
    let mut found = false;
    let name = entry.name.clone();
    for record in message.answers.iter().filter(|record| record.name.eq_ignore_ascii_case(&name)) {
        match &record.data {
            Data::A(ip) if kind == Kind::A => entry.addrs.push((*ip).into()),
            Data::Aaaa(ip) if kind == Kind::Aaaa => entry.addrs.push((*ip).into()),
            Data::Ptr(target) if kind == Kind::Ptr && !found => entry.name.clone_from(target),
            _ => continue,
        }
        found = true;
        *ttl_seconds = record.ttl.min(*ttl_seconds);
    }
    found
}

fn kind_of(ip: &IpAddr) -> Kind {
    if ip.is_ipv4() { Kind::A } else { Kind::Aaaa }
}

fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// Puts IPv6 first where there is a way to it, and last where there is none (the first rule of RFC 6724 §6).
fn prefer_reachable(addrs: &mut [IpAddr]) {
    let Some(six) = addrs.iter().find(|ip| ip.is_ipv6()).copied() else { return };
    // Connecting a datagram socket sends nothing: it only looks for a way.
    let probe = super::super::UdpSocket::bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0));
    let reachable = probe.is_ok_and(|probe| probe.connect(SocketAddr::new(six, 53)).is_ok());
    addrs.sort_by_key(|ip| ip.is_ipv6() != reachable);
}

/// Where the names of addresses are kept (RFC 1035 §3.5, RFC 3596 §2.5).
fn reverse_name(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => {
            let octets = ip.octets();
            let nibbles = octets.iter().rev().flat_map(|octet| [octet & 0xF, octet >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).collect::<String>() + "ip6.arpa"
        }
    }
}

fn about(host: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{host}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_names_to_ask_for() {
        assert_eq!(reverse_name("192.0.2.7".parse().unwrap()), "7.2.0.192.in-addr.arpa");
        let six = reverse_name("2001:db8::1".parse().unwrap());
        assert!(six.starts_with("1.0.0.0.") && six.ends_with(".8.b.d.0.1.0.0.2.ip6.arpa"), "{six}");
        assert_eq!(six.len(), 72);
    }
}

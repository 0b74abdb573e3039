//! The examples of the reactor, run as programs.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Output, Stdio};
use std::thread;

use support::{PATIENCE, Program, example};

/// Starts an example that listens, on a free port.
fn start(name: &str, arguments: &[&str]) -> (Program, String) {
    let program = Program::start(example(name).args(arguments));
    let line = program.line();
    let addr = line.strip_prefix("listening on ").expect("where it listens").to_owned();
    (program, addr)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// It ends with an error that says `words`.
#[track_caller]
fn expect_failure(name: &str, arguments: &[&str], words: &[&str]) {
    let output = example(name).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

/// An address on which nobody listens.
fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn echo() {
    let (server, addr) = start("reactor_echo_server", &["127.0.0.1:0"]);
    let client = |words: &[&str]| {
        let output = example("reactor_echo_client").arg(&addr).args(words).output().unwrap();
        assert!(output.status.success());
        text(&output.stdout)
    };
    assert_eq!(client(&[]), "hello, world\n");
    assert_eq!(client(&["one", "two"]), "one two\n");
    assert_eq!(server.line(), "a connection has ended: closed by the peer");
    expect_failure(
        "reactor_echo_server",
        &[&addr],
        &["cannot listen on", "is it running already?"],
    );
    expect_failure("reactor_echo_server", &["nowhere"], &["nowhere is no address such as"]);
    expect_failure("reactor_echo_client", &["1234"], &["1234 is no address such as"]);
    expect_failure("reactor_echo_client", &[&nobody()], &["refused", "start reactor_echo_server"]);
}

#[test]
fn an_echo_that_is_not_read_is_held_back() {
    let (_server, addr) = start("reactor_echo_server", &["127.0.0.1:0"]);
    let mut stream = TcpStream::connect(addr).unwrap();
    let mut sending = stream.try_clone().unwrap();
    // More than all buffers between here and there take: it is written only as fast as it is read.
    let sender = thread::spawn(move || {
        for _ in 0..400 {
            sending.write_all(&[b'x'; 100_000]).unwrap();
        }
        sending.shutdown(Shutdown::Write).unwrap();
    });
    let mut echoed = Vec::new();
    stream.read_to_end(&mut echoed).unwrap();
    sender.join().unwrap();
    assert_eq!(echoed.len(), 40_000_000);
}

/// A user of the chat.
struct User {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl User {
    fn connect(addr: &str) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap());
        let mut user = Self { stream, lines };
        assert_eq!(user.line(), "What is your name?");
        user
    }

    fn named(addr: &str, name: &str) -> Self {
        let mut user = Self::connect(addr);
        user.say(name);
        let welcome = user.line();
        assert!(welcome.starts_with(&format!("Welcome, {name}. Here are: ")), "{welcome}");
        user
    }

    fn say(&mut self, line: &str) {
        self.stream.write_all(format!("{line}\r\n").as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

#[test]
fn chat() {
    let (_server, addr) = start("chat_server", &["127.0.0.1:0"]);
    let mut ann = User::named(&addr, "Ann");
    let mut bob = User::connect(&addr);
    bob.say("no spaces");
    assert_eq!(bob.line(), "A name has 1 to 20 letters, digits or _. Yours?");
    bob.say("ANN");
    assert_eq!(bob.line(), "ANN is taken. Another name?");
    bob.say("bob");
    assert_eq!(bob.line(), "Welcome, bob. Here are: Ann, bob. /help tells more.");
    assert_eq!(ann.line(), "* bob has joined");
    ann.say("hello \u{1b}[2Jeverybody");
    assert_eq!(bob.line(), "<Ann> hello [2Jeverybody");
    bob.say("/who");
    assert_eq!(bob.line(), "Here are: Ann, bob");
    let mut eve = User::named(&addr, "eve");
    assert_eq!((ann.line(), bob.line()), ("* eve has joined".into(), "* eve has joined".into()));
    ann.say("/msg BOB a secret");
    ann.say("/msg nobody hello");
    assert_eq!(bob.line(), "[Ann, to you] a secret");
    assert_eq!(ann.line(), "nobody is not here: /who tells who is");
    ann.say("/dance");
    assert_eq!(ann.line(), "There is no /dance: /help tells what there is");
    // Eve has not heard the secret, only what comes next.
    bob.say("/quit");
    assert_eq!(bob.line(), "");
    assert_eq!((ann.line(), eve.line()), ("* bob has left".into(), "* bob has left".into()));
    // The name is free again.
    let mut other = User::named(&addr, "bob");
    assert_eq!(ann.line(), "* bob has joined");
    other.say(&"x".repeat(2000));
    assert_eq!(other.line(), "A line has at most 1000 bytes. Good bye.");
    assert_eq!(ann.line(), "* bob has left");
    drop(eve);
    assert_eq!(ann.line(), "* eve has left");
}

#[test]
fn a_slow_chatter_harms_nobody() {
    let (_server, addr) = start("chat_server", &["127.0.0.1:0"]);
    let mut ann = User::named(&addr, "ann");
    // Says nothing, and reads nothing.
    let _slow = User::named(&addr, "slow");
    let mut bob = User::named(&addr, "bob");
    assert_eq!((ann.line(), ann.line()), ("* slow has joined".into(), "* bob has joined".into()));
    let text = "x".repeat(900);
    let (mut said, mut gone) = (0, false);
    while !gone {
        for _ in 0..100 {
            bob.say(&text);
        }
        said += 100;
        assert!(said < 100_000, "some 100 MB should be enough to be too slow for");
        // Ann gets all of it, in time.
        let mut heard = 0;
        while heard < 100 {
            match ann.line() {
                line if line == "* slow has left (too slow)" => gone = true,
                line => {
                    assert_eq!(line, format!("<bob> {text}"));
                    heard += 1;
                }
            }
        }
    }
}

#[test]
fn proxy() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = server.local_addr().unwrap();
    let proxy = Program::start(example("port_proxy").args(["127.0.0.1:0", &target.to_string()]));
    let line = proxy.line();
    let parts: Vec<&str> = line.split(' ').collect();
    let ["forwarding", addr, "to", to] = parts[..] else { panic!("{line}") };
    assert_eq!(to, target.to_string());

    // Half a close is passed on, in either direction, with many bytes before it.
    let mut client = TcpStream::connect(addr).unwrap();
    let (mut served, _) = server.accept().unwrap();
    let mut asking = client.try_clone().unwrap();
    let asked = thread::spawn(move || {
        asking.write_all(&vec![b'?'; 20_000_000]).unwrap();
        asking.shutdown(Shutdown::Write).unwrap();
    });
    let mut question = Vec::new();
    served.read_to_end(&mut question).unwrap();
    asked.join().unwrap();
    assert_eq!(question.len(), 20_000_000);
    let answered = thread::spawn(move || {
        served.write_all(&vec![b'!'; 20_000_000]).unwrap();
    });
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    answered.join().unwrap();
    assert!(answer.len() == 20_000_000 && answer.iter().all(|&byte| byte == b'!'));

    // Who goes away takes the other along.
    let client = TcpStream::connect(addr).unwrap();
    let (mut served, _) = server.accept().unwrap();
    drop(client);
    assert_eq!(served.read(&mut [0]).unwrap(), 0);

    // Nobody to forward to.
    drop(server);
    let mut client = TcpStream::connect(addr).unwrap();
    assert!(client.read(&mut [0]).map_or(true, |count| count == 0));
    expect_failure("port_proxy", &["127.0.0.1:0"], &["which port, and where to?"]);
    expect_failure("port_proxy", &["here", addr], &["here is no address such as"]);
    expect_failure("port_proxy", &["127.0.0.1:0", "there"], &["cannot forward to there"]);
}

/// Bytes that are not the same anywhere.
fn content(size: usize) -> Vec<u8> {
    (0..size as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn fetch(addr: &str, name: &str, folder: &Path) -> Output {
    example("file_client").args([addr, name]).arg(folder).output().unwrap()
}

#[test]
fn file_transfer() {
    let (shop, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(shop.path().join("large"), content(5_000_000)).unwrap();
    std::fs::write(shop.path().join("two words"), "hello").unwrap();
    std::fs::write(shop.path().join("empty"), "").unwrap();
    std::fs::write(shop.path().join(".hidden"), "secret").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", shop.path().join("link")).unwrap();
    std::fs::create_dir(shop.path().join("folder")).unwrap();
    let folder = shop.path().to_str().unwrap();
    let (_server, addr) = start("file_server", &[folder, "127.0.0.1:0"]);

    for (name, bytes) in
        [("large", content(5_000_000)), ("two words", b"hello".to_vec()), ("empty", Vec::new())]
    {
        let output = fetch(&addr, name, home.path());
        let told = text(&output.stderr);
        assert!(output.status.success() && told.contains("100 % of"), "{told}");
        assert!(text(&output.stdout).starts_with("SHA-256 "));
        assert_eq!(std::fs::read(home.path().join(name)).unwrap(), bytes);
    }
    assert!(!home.path().join("large.part").exists());
    // The right one, as other programs know it.
    let known = text(&fetch(&addr, "two words", home.path()).stdout);
    let digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    assert!(known.starts_with(&format!("SHA-256 {digest}\n")), "{known}");

    let failures = [
        ("nothing", "the server has no nothing"),
        ("link", "the server has no link"),
        (".hidden", "not the name of a file"),
        ("../large", "not the name of a file"),
    ];
    for (name, words) in failures {
        expect_failure("file_client", &[&addr, name, home.path().to_str().unwrap()], &[words]);
    }
    // Not all clients are so polite as to refuse by themselves.
    let mut rude = TcpStream::connect(&addr).unwrap();
    let mut lines = BufReader::new(rude.try_clone().unwrap()).lines().map(Result::unwrap);
    for name in ["../../etc/passwd", "/etc/passwd", "link", ".hidden", "folder", "folder/.."] {
        rude.write_all(format!("GET 0 {name}\r\n").as_bytes()).unwrap();
        assert_eq!(lines.next().unwrap(), format!("ERROR there is no file {name}"));
    }
    rude.write_all(b"GET 9 two words\r\nGET\r\nPUT\r\nLIST\r\n").unwrap();
    let answers: Vec<String> = lines.take(7).collect();
    assert_eq!(
        answers,
        [
            "ERROR two words has 5 bytes, and none from 9 on",
            "ERROR what is wanted is: GET offset name",
            "ERROR there are LIST and GET, but not PUT",
            "FILES 3",
            "0 empty",
            "5000000 large",
            "5 two words",
        ]
    );
    expect_failure("file_client", &[&nobody(), "x"], &["refused", "is file_server running?"]);
    expect_failure("file_server", &[], &["which folder?"]);
    expect_failure("file_server", &["/no/such/folder"], &["cannot give away /no/such/folder"]);
}

#[test]
fn file_transfer_asks_which_file() {
    let (shop, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(shop.path().join("a"), "first").unwrap();
    std::fs::write(shop.path().join("b"), "second").unwrap();
    let (_server, addr) = start("file_server", &[shop.path().to_str().unwrap(), "127.0.0.1:0"]);
    let mut program = example("file_client");
    program.arg(&addr).current_dir(home.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut client = program.spawn().unwrap();
    client.stdin.take().unwrap().write_all(b"2\n").unwrap();
    let output = client.wait_with_output().unwrap();
    let said = text(&output.stdout);
    assert!(said.contains("  1             5  a\n  2             6  b\nwhich one? "), "{said}");
    assert_eq!(std::fs::read(home.path().join("b")).unwrap(), b"second");
    expect_failure("file_client", &[&addr], &["nothing was chosen"]);
}

/// Forwards connections to `target`. Those before the last are cut after so many bytes as `cuts` say.
fn cutting_proxy(target: &str, cuts: Vec<usize>) -> (SocketAddr, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let target = target.to_owned();
    let proxy = thread::spawn(move || {
        for cut in cuts.into_iter().chain([usize::MAX]) {
            let (mut client, _) = listener.accept().unwrap();
            let mut server = TcpStream::connect(&target).unwrap();
            let (mut asking, mut asked) =
                (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || {
                let _ = std::io::copy(&mut asking, &mut asked);
                let _ = asked.shutdown(Shutdown::Write);
            });
            let mut answer = (&mut server).take(cut as u64);
            let _ = std::io::copy(&mut answer, &mut client);
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    });
    (addr, proxy)
}

#[test]
fn file_transfer_goes_on_after_cuts_and_sees_damage() {
    let (shop, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bytes = content(3_000_000);
    std::fs::write(shop.path().join("data"), &bytes).unwrap();
    let (server, addr) = start("file_server", &[shop.path().to_str().unwrap(), "127.0.0.1:0"]);
    let (by, part) = (home.path().join("data"), home.path().join("data.part"));

    // Cut in the greeting, in the middle, and near the end.
    let (proxy, ended) = cutting_proxy(&addr, vec![1_000_000, 10, 1_500_000]);
    let output = fetch(&proxy.to_string(), "data", home.path());
    ended.join().unwrap();
    let told = text(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert_eq!(told.matches("going on").count(), 3, "{told}");
    assert!(told.contains("of 3000000 bytes are here already"), "{told}");
    assert_eq!(std::fs::read(&by).unwrap(), bytes);
    assert!(!part.exists());
    // The server has been asked for the rest only.
    assert_eq!(server.line(), "sending data from byte 0 of 3000000");
    let mut lines = (0..10).map(|_| server.line()).filter(|line| line.starts_with("sending"));
    let second = lines.next().unwrap();
    assert!(second != "sending data from byte 0 of 3000000", "{second}");

    // What another run has left is used.
    std::fs::write(&part, &bytes[..2_000_000]).unwrap();
    let told = text(&fetch(&addr, "data", home.path()).stderr);
    assert!(told.starts_with("2000000 of 3000000 bytes are here already\n"), "{told}");
    assert_eq!(std::fs::read(&by).unwrap(), bytes);

    // Damaged, or too long: seen, and all is fetched anew.
    let mut wrong = bytes[..2_000_000].to_vec();
    wrong[77] ^= 1;
    for left in [wrong, vec![0; 3_000_001]] {
        std::fs::write(&part, left).unwrap();
        let output = fetch(&addr, "data", home.path());
        let told = text(&output.stderr);
        assert!(output.status.success(), "{told}");
        assert!(told.contains("the partial file was damaged: fetching all of data"), "{told}");
        assert_eq!(std::fs::read(&by).unwrap(), bytes);
    }

    // All of it is there, but the last answer was lost.
    std::fs::write(&part, &bytes).unwrap();
    assert!(fetch(&addr, "data", home.path()).status.success());

    // For ever cut: given up in the end, with what has come kept.
    std::fs::write(&part, &bytes[..1000]).unwrap();
    let (proxy, _) = cutting_proxy(&addr, vec![10; 20]);
    let output = fetch(&proxy.to_string(), "data", home.path());
    let told = text(&output.stderr);
    assert!(!output.status.success() && told.contains("given up after 5 tries"), "{told}");
    assert_eq!(std::fs::read(&part).unwrap(), bytes[..1000]);
}

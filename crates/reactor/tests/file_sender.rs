//! Files sent to connections.

use std::cell::{Cell, RefCell};
use std::io::Read;
use std::rc::Rc;
use std::time::Duration;

use warren_hub::fs::{self, File};
use warren_hub::net::TcpStream;
use warren_hub::{run, sleep, with_timeout};
use warren_reactor::protocols::{FileSender, FileSenderError, for_protocol};
use warren_reactor::{
    Consumer, Deferred, Failure, PeerAddr, Producer, Protocol, Reason, Transport, listen_tcp,
};

const LIMIT: Duration = Duration::from_secs(30);

/// Calls `test` with the path of a file of `bytes` bytes, and these.
fn with_file(bytes: usize, test: impl FnOnce(File, Vec<u8>) + 'static) {
    run(move || {
        let body = || {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("file");
            let contents: Vec<u8> = (0..bytes).map(|at| (at / 3) as u8).collect();
            fs::write(&path, &contents).unwrap();
            test(File::open(&path).unwrap(), contents);
        };
        with_timeout(LIMIT, body).expect("it takes no longer than the limit");
    });
}

/// Takes one piece each time it is told to.
#[derive(Clone, Default)]
struct Taker(Rc<Taken>);

#[derive(Default)]
struct Taken {
    pieces: RefCell<Vec<Vec<u8>>>,
    producer: RefCell<Option<Rc<dyn Producer>>>,
    times_unregistered: Cell<usize>,
}

impl Consumer for Taker {
    fn register_producer(&self, producer: Rc<dyn Producer>, streaming: bool) {
        assert!(!streaming);
        *self.0.producer.borrow_mut() = Some(producer);
    }

    fn unregister_producer(&self) {
        self.0.producer.take();
        self.0.times_unregistered.set(self.0.times_unregistered.get() + 1);
    }

    fn write(&self, data: &[u8]) {
        self.0.pieces.borrow_mut().push(data.to_vec());
    }
}

impl Taker {
    /// Says that there is room until `count` pieces are here, or nobody sends any more.
    fn take(&self, count: usize) {
        while self.0.pieces.borrow().len() < count {
            let before = self.0.pieces.borrow().len();
            let Some(producer) = self.0.producer.borrow().clone() else { return };
            producer.resume_producing();
            while self.0.pieces.borrow().len() == before && self.0.producer.borrow().is_some() {
                sleep(Duration::from_micros(100));
            }
        }
    }
}

#[test]
fn pieces_come_when_they_are_asked_for() {
    with_file(1000, |file, contents| {
        let taker = Taker::default();
        let sent = FileSender::new().chunk_size(300).begin_file_transfer(file, taker.clone());
        sleep(Duration::from_millis(5));
        assert!(taker.0.pieces.borrow().is_empty());
        taker.take(2);
        sleep(Duration::from_millis(5));
        assert_eq!(taker.0.pieces.borrow().len(), 2);
        taker.take(usize::MAX);
        assert_eq!(sent.wait().unwrap(), 1000);
        let lengths: Vec<usize> = taker.0.pieces.borrow().iter().map(Vec::len).collect();
        assert_eq!(lengths, [300, 300, 300, 100]);
        assert_eq!(taker.0.pieces.borrow().concat(), contents);
        assert_eq!(taker.0.times_unregistered.get(), 1);
    });
}

#[test]
fn a_range_is_sent_as_far_as_the_file_has_it() {
    for (range, want) in
        [(0..0, 0..0), (10..25, 10..25), (990..2000, 990..1000), (1000..1001, 0..0)]
    {
        with_file(1000, move |file, contents| {
            let taker = Taker::default();
            let sender = FileSender::new().chunk_size(10).range(range);
            let sent = sender.begin_file_transfer(file, taker.clone());
            taker.take(usize::MAX);
            assert_eq!(sent.wait().unwrap(), (want.end - want.start) as u64);
            assert_eq!(taker.0.pieces.borrow().concat(), contents[want]);
        });
    }
}

#[test]
fn pieces_may_be_changed_on_their_way() {
    with_file(1000, |file, contents| {
        let taker = Taker::default();
        let seen = Rc::new(Cell::new(0));
        let progress = seen.clone();
        let sender = FileSender::new().chunk_size(100).transform(move |mut piece| {
            progress.set(progress.get() + piece.len());
            piece.push(b'.');
            piece
        });
        let sent = sender.begin_file_transfer(file, taker.clone());
        taker.take(usize::MAX);
        assert_eq!((sent.wait().unwrap(), seen.get()), (1000, 1000));
        assert_eq!(taker.0.pieces.borrow()[0], [&contents[..100], b"."].concat());
    });
}

#[test]
fn a_transform_that_panics_ends_the_transfer() {
    with_file(1000, |file, _| {
        let taker = Taker::default();
        let sender = FileSender::new().transform(|_| panic!("asked for by a test"));
        let sent = sender.begin_file_transfer(file, taker.clone());
        taker.take(usize::MAX);
        assert!(matches!(sent.wait(), Err(Failure::Panicked(_))));
        assert_eq!(taker.0.times_unregistered.get(), 1);
    });
}

#[test]
fn a_consumer_may_stop_it() {
    with_file(1000, |file, _| {
        let taker = Taker::default();
        let sent = FileSender::new().chunk_size(100).begin_file_transfer(file, taker.clone());
        taker.take(3);
        let producer = taker.0.producer.borrow().clone().unwrap();
        producer.stop_producing();
        let stopped = sent.wait().unwrap_err();
        assert!(matches!(stopped, Failure::Error(FileSenderError::Stopped { sent: 300 })));
    });
}

#[test]
fn it_can_be_cancelled() {
    with_file(1000, |file, _| {
        let taker = Taker::default();
        let sent = FileSender::new().chunk_size(100).begin_file_transfer(file, taker.clone());
        taker.take(3);
        sent.cancel();
        assert!(matches!(sent.wait(), Err(Failure::Cancelled)));
        taker.take(usize::MAX);
        assert_eq!((taker.0.pieces.borrow().len(), taker.0.times_unregistered.get()), (3, 1));
    });
}

/// Begins to send at once, and closes.
struct Download(Option<File>, Rc<RefCell<Option<Deferred<u64, FileSenderError>>>>);

impl Protocol for Download {
    fn connection_made(&mut self, transport: &Transport) {
        let file = self.0.take().unwrap();
        let sent = FileSender::new().begin_file_transfer(file, transport.clone());
        *self.1.borrow_mut() = Some(sent);
        transport.lose_connection();
    }
    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) {}
    fn connection_lost(&mut self, _reason: &Reason) {}
}

#[test]
fn a_connection_that_is_lost_meanwhile_ends_after_the_file() {
    with_file(5_000_000, |file, contents| {
        let sent = Rc::<RefCell<Option<_>>>::default();
        let (place, mut file) = (sent.clone(), Some(file));
        let factory = for_protocol(move || Download(file.take(), place.clone()));
        let port = listen_tcp("127.0.0.1:0".parse().unwrap(), Box::new(factory)).unwrap();
        let PeerAddr::Tcp(addr) = *port.addr() else { unreachable!("a TCP port") };
        let mut received = Vec::new();
        TcpStream::connect(addr).unwrap().read_to_end(&mut received).unwrap();
        assert!(received == contents);
        let sent = sent.take().unwrap();
        assert_eq!(sent.wait().unwrap(), 5_000_000);
    });
}

#[test]
fn a_peer_that_goes_stops_it() {
    with_file(50_000_000, |file, _| {
        let sent = Rc::<RefCell<Option<_>>>::default();
        let (place, mut file) = (sent.clone(), Some(file));
        let factory = for_protocol(move || Download(file.take(), place.clone()));
        let port = listen_tcp("127.0.0.1:0".parse().unwrap(), Box::new(factory)).unwrap();
        let PeerAddr::Tcp(addr) = *port.addr() else { unreachable!("a TCP port") };
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.read_exact(&mut [0; 1000]).unwrap();
        drop(stream);
        let sent = sent.take().unwrap();
        assert!(matches!(sent.wait(), Err(Failure::Error(FileSenderError::Stopped { .. }))));
    });
}

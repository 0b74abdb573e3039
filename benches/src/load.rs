//! A load generator on plain threads and blocking sockets, the same for every broker: it knows the codec and
//! neither our event loop nor our client.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use warren_amqp::constants::PROTOCOL_HEADER;
use warren_amqp::frame::{self, Frame, FrameReader};
use warren_amqp::method::{EncodeMethod, basic, channel, confirm, connection, queue};
use warren_amqp::{AmqpUri, BasicProperties, FieldTable, Method};

/// Messages that are on their way at most, per queue: a publisher waits for its consumer.
const IN_FLIGHT_MAX: u64 = 20_000;
/// Confirms that are owed at most.
const UNCONFIRMED_MAX: u64 = 2_000;
/// Messages encoded at once and written by one call.
const BATCH: u64 = 100;
/// How long a server runs in before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Bytes of each body.
    pub body_bytes: usize,
    /// Queues, each with a publisher and a consumer on connections of their own.
    pub queues: usize,
    /// Durable queues, persistent messages, publisher confirms.
    pub persistent: bool,
}

/// A connection with channel 1 open.
pub struct Client {
    stream: TcpStream,
    reader: FrameReader,
    buffer: Vec<u8>,
}

fn other(text: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(text)
}

impl Client {
    /// Connects, logs in, opens a channel.
    ///
    /// # Errors
    /// When the server cannot be reached, or answers otherwise than it should.
    pub fn open(url: &str) -> io::Result<Self> {
        let uri: AmqpUri = url.parse().map_err(other)?;
        let stream = TcpStream::connect((uri.host.as_str(), uri.port))?;
        stream.set_nodelay(true)?;
        let mut client =
            Self { stream, reader: FrameReader::new(131_072), buffer: vec![0; 256 * 1024] };
        client.stream.write_all(&PROTOCOL_HEADER)?;
        client.expect("connection.start")?;
        let response = format!("\0{}\0{}", uri.user, uri.password);
        client.send(
            0,
            &connection::StartOk {
                client_properties: FieldTable::new(),
                mechanism: "PLAIN",
                response: response.as_bytes(),
                locale: "en_US",
            },
        )?;
        client.expect("connection.tune")?;
        client
            .send(0, &connection::TuneOk { channel_max: 100, frame_max: 131_072, heartbeat: 0 })?;
        client.send(0, &connection::Open { virtual_host: &uri.vhost })?;
        client.expect("connection.open-ok")?;
        client.send(1, &channel::Open {})?;
        client.expect("channel.open-ok")?;
        Ok(client)
    }

    fn send(&mut self, number: u16, method: &impl EncodeMethod) -> io::Result<()> {
        let mut out = Vec::new();
        frame::write_method(&mut out, number, method);
        self.stream.write_all(&out)
    }

    /// Reads until a method of this name comes.
    fn expect(&mut self, name: &str) -> io::Result<()> {
        loop {
            let mut found = Ok(false);
            self.read(|frame| {
                if let Frame::Method { payload, .. } = frame {
                    match Method::decode(payload) {
                        Ok(method) if method.name() == name => found = Ok(true),
                        Ok(Method::ConnectionClose(close)) => {
                            found = Err(close.reply_text.to_owned())
                        }
                        Ok(Method::ChannelClose(close)) => found = Err(close.reply_text.to_owned()),
                        _ => {}
                    }
                }
            })?;
            if found.map_err(other)? {
                return Ok(());
            }
        }
    }

    fn read(&mut self, mut each: impl FnMut(Frame<'_>)) -> io::Result<()> {
        let count = self.stream.read(&mut self.buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.reader
            .feed(&self.buffer[..count], |frame| {
                each(frame);
                Ok::<(), warren_amqp::FrameError>(())
            })
            .map_err(other)
    }
}

/// What the threads of a case share.
struct Shared {
    published: AtomicU64,
    consumed: AtomicU64,
    stop: AtomicBool,
    ready: Barrier,
}

/// Messages per second that went through, from publisher to consumer.
///
/// # Errors
/// When the server fails.
///
/// # Panics
/// When a thread does.
pub fn throughput(url: &str, case: Case, time: Duration) -> io::Result<f64> {
    let lanes: Vec<Arc<Shared>> = (0..case.queues)
        .map(|_| {
            Arc::new(Shared {
                published: AtomicU64::new(0),
                consumed: AtomicU64::new(0),
                stop: AtomicBool::new(false),
                ready: Barrier::new(3),
            })
        })
        .collect();
    let mut threads = Vec::new();
    for (number, lane) in lanes.iter().enumerate() {
        let name = format!("bench-{}-{number}", std::process::id());
        let (consumer, publisher) = (url.to_owned(), url.to_owned());
        let (shared, queue) = (lane.clone(), name.clone());
        threads.push(thread::spawn(move || consume(&consumer, &queue, case, &shared)));
        let shared = lane.clone();
        threads.push(thread::spawn(move || publish(&publisher, &name, case, &shared)));
        lane.ready.wait();
    }
    let total = || lanes.iter().map(|lane| lane.consumed.load(Ordering::Relaxed)).sum::<u64>();
    thread::sleep(WARM_UP);
    let (before, start) = (total(), Instant::now());
    thread::sleep(time);
    let (after, took) = (total(), start.elapsed());
    for lane in &lanes {
        lane.stop.store(true, Ordering::Relaxed);
    }
    for thread in threads {
        thread.join().expect("a load thread has panicked")?;
    }
    Ok((after - before) as f64 / took.as_secs_f64())
}

fn consume(url: &str, queue: &str, case: Case, shared: &Shared) -> io::Result<()> {
    let mut client = Client::open(url)?;
    client.send(
        1,
        &queue::Declare { queue, durable: case.persistent, ..queue::Declare::default() },
    )?;
    client.expect("queue.declare-ok")?;
    client.send(1, &basic::Consume { queue, no_ack: true, ..basic::Consume::default() })?;
    client.expect("basic.consume-ok")?;
    shared.ready.wait();
    client.stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    while !shared.stop.load(Ordering::Relaxed) {
        let mut bodies = 0;
        match client.read(|frame| bodies += u64::from(matches!(frame, Frame::Body { .. }))) {
            Ok(()) => drop(shared.consumed.fetch_add(bodies, Ordering::Relaxed)),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    client.stream.set_read_timeout(None)?;
    client.send(1, &queue::Delete { queue, ..queue::Delete::default() })?;
    client.expect("queue.delete-ok")
}

fn publish(url: &str, queue: &str, case: Case, shared: &Shared) -> io::Result<()> {
    let mut client = Client::open(url)?;
    if case.persistent {
        client.send(1, &confirm::Select { no_wait: false })?;
        client.expect("confirm.select-ok")?;
    }
    let properties =
        if case.persistent { BasicProperties::persistent() } else { BasicProperties::new() };
    let mut raw = Vec::new();
    properties.encode(&mut raw);
    let publish = basic::Publish { routing_key: queue, ..basic::Publish::default() };
    let body = vec![b'x'; case.body_bytes];
    let mut batch = Vec::new();
    for _ in 0..BATCH {
        frame::write_publish(&mut batch, 1, &publish, &raw, &body, 131_072);
    }
    let mut stream = client.stream.try_clone()?;
    let confirmed = Arc::new(AtomicU64::new(0));
    let confirming = case.persistent.then(|| {
        let confirmed = confirmed.clone();
        thread::spawn(move || read_confirms(client, &confirmed))
    });
    shared.ready.wait();
    while !shared.stop.load(Ordering::Relaxed) {
        let published = shared.published.load(Ordering::Relaxed);
        let ahead = published.saturating_sub(shared.consumed.load(Ordering::Relaxed));
        let owed = if case.persistent { published - confirmed.load(Ordering::Relaxed) } else { 0 };
        if IN_FLIGHT_MAX < ahead + BATCH || UNCONFIRMED_MAX < owed + BATCH {
            thread::sleep(Duration::from_micros(50));
            continue;
        }
        stream.write_all(&batch)?;
        shared.published.fetch_add(BATCH, Ordering::Relaxed);
    }
    stream.shutdown(std::net::Shutdown::Both)?;
    if let Some(confirming) = confirming {
        confirming.join().expect("the thread that reads confirms has panicked");
    }
    Ok(())
}

/// Notes confirms until the connection ends. Both brokers confirm in order.
fn read_confirms(mut client: Client, confirmed: &AtomicU64) {
    let note = |frame: Frame<'_>| {
        if let Frame::Method { payload, .. } = frame
            && let Ok(Method::BasicAck(ack)) = Method::decode(payload)
        {
            confirmed.fetch_max(ack.delivery_tag, Ordering::Relaxed);
        }
    };
    while client.read(note).is_ok() {}
}

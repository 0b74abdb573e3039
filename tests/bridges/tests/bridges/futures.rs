//! futures-io's traits, and the methods that async code polls.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::io::{AsyncReadExt, AsyncWriteExt};
use futures_util::join;
use warren_hub::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use warren_hub::{future, pipe, run, spawn};

use super::{connected, noise};

#[test]
fn one_fiber_reads_and_writes_more_than_the_buffers_hold() {
    run(|| {
        let (one, other) = connected();
        let sent = noise(4 << 20);
        let mut echoed = vec![0; sent.len()];
        // Both ends, both directions, on one fiber.
        future::wait(async {
            let (mut reader, mut writer) = one.split();
            let (mut back, mut forth) = other.split();
            join!(
                async {
                    writer.write_all(&sent).await.unwrap();
                    writer.close().await.unwrap();
                },
                async { futures_util::io::copy(&mut back, &mut forth).await.unwrap() },
                async { reader.read_exact(&mut echoed).await.unwrap() },
            );
        });
        assert!(sent == echoed);
    });
}

#[test]
fn async_code_talks_to_code_that_parks() {
    run(|| {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        let parked = spawn(move || {
            let text = io::read_to_string(&other).unwrap();
            io::Write::write_all(&mut other, text.to_uppercase().as_bytes()).unwrap();
        });
        let answer = future::wait(async move {
            let slices = [IoSlice::new(b"so "), IoSlice::new(b"loud")];
            assert_eq!(one.write_vectored(&slices).await.unwrap(), 7);
            one.close().await.unwrap();
            let mut answer = String::new();
            one.read_to_string(&mut answer).await.unwrap();
            answer
        });
        assert_eq!(answer, "SO LOUD");
        parked.join().unwrap();
    });
}

#[test]
fn halves_and_pipes_are_readers_and_writers_too() {
    run(|| {
        let (one, other) = connected();
        let (mut reader, mut writer) = pipe::pipe().unwrap();
        let (mut from_peer, _unused) = one.into_split();
        let (_unused, mut to_peer) = other.into_split();
        let got = future::wait(async move {
            let through_pipe = async move {
                writer.write_all(b"pipe").await.unwrap();
                writer.close().await.unwrap();
                drop(writer);
                let mut text = String::new();
                reader.read_to_string(&mut text).await.unwrap();
                text
            };
            let through_socket = async move {
                to_peer.write_all(b"socket").await.unwrap();
                to_peer.close().await.unwrap();
                let mut text = String::new();
                from_peer.read_to_string(&mut text).await.unwrap();
                text
            };
            join!(through_pipe, through_socket)
        });
        assert_eq!(got, ("pipe".to_owned(), "socket".to_owned()));
    });
}

#[test]
fn listeners_accept_for_async_code() {
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let unix = UnixListener::bind(&path).unwrap();
        let (accepted, unix_accepted, connected) = future::wait(async {
            join!(
                poll_fn(|cx| listener.poll_accept(cx)),
                poll_fn(|cx| unix.poll_accept(cx)),
                async {
                    let tcp = spawn(move || TcpStream::connect(addr).unwrap()).await.unwrap();
                    (tcp, spawn(move || UnixStream::connect(path).unwrap()).await.unwrap())
                },
            )
        });
        assert_eq!(accepted.unwrap().1, connected.0.local_addr().unwrap());
        assert!(unix_accepted.is_ok());
    });
}

#[test]
fn a_task_that_asks_often_is_noted_once() {
    struct Nothing;
    impl Wake for Nothing {
        fn wake(self: Arc<Self>) {}
    }
    run(|| {
        let (one, other) = UnixStream::pair().unwrap();
        let wakes = Arc::new(Nothing);
        let waker = Waker::from(wakes.clone());
        for _ in 0..100 {
            let polled = one.poll_read(&mut Context::from_waker(&waker), &mut [0; 8]);
            assert!(polled.is_pending());
        }
        // Ours, the waker's, and the socket's.
        assert_eq!(Arc::strong_count(&wakes), 3);
        // Fibers that give up leave one waker behind for each fiber, not one for each time.
        for _ in 0..20 {
            let gave_up = future::wait_timeout(
                poll_fn(|cx| one.poll_read(cx, &mut [0; 8])),
                Duration::from_millis(1),
            );
            assert!(gave_up.is_err());
        }
        io::Write::write_all(&mut &other, b"x").unwrap();
        let mut byte = [0; 8];
        let read = future::wait(poll_fn(|cx| one.poll_read(cx, &mut byte)));
        assert_eq!((read.unwrap(), byte[0]), (1, b'x'));
        assert_eq!(Arc::strong_count(&wakes), 2);
        // Room to write there is.
        let wrote = one.poll_write(&mut Context::from_waker(&waker), b"y");
        assert!(matches!(wrote, Poll::Ready(Ok(1))));
    });
}

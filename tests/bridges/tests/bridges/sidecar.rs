//! tokio itself, on its thread beside the hub; and libraries that insist on it.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use warren_hub::bridge::tokio::{handle, run as on_tokio, spawn as spawn_on_tokio};
use warren_hub::{future, join_all, run, sleep, spawn, with_timeout, yield_now};

use super::http;

#[test]
fn tasks_run_on_one_thread_and_park_only_who_asks() {
    run(|| {
        const TASKS: usize = 20;
        let here = thread::current().id();
        // Nobody passes before all have come: they wait at the same time.
        let barrier = Arc::new(tokio::sync::Barrier::new(TASKS));
        let fibers = (0..TASKS).map(|number| {
            let barrier = barrier.clone();
            spawn(move || {
                on_tokio(move || async move {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    barrier.wait().await;
                    // What tokio's own tasks can use.
                    let doubled = tokio::spawn(async move { 2 * number }).await.unwrap();
                    (doubled, thread::current().id())
                })
            })
        });
        let ended: Vec<_> = join_all(fibers).into_iter().map(Result::unwrap).collect();
        for (number, (doubled, thread)) in ended.iter().enumerate() {
            assert_eq!(*doubled, 2 * number);
            assert_ne!(*thread, here);
            assert_eq!(*thread, ended[0].1);
        }
    });
}

#[test]
fn a_future_need_not_be_send() {
    run(|| {
        let length = on_tokio(|| async {
            let text = Rc::new(String::from("local"));
            tokio::task::yield_now().await;
            text.len()
        });
        assert_eq!(length, 5);
    });
}

#[test]
fn a_panic_over_there_is_passed_on() {
    run(|| {
        let panicked = catch_unwind(AssertUnwindSafe(|| on_tokio(|| async { panic!("there") })));
        assert_eq!(*panicked.unwrap_err().downcast::<&str>().unwrap(), "there");
        let task = spawn_on_tokio(|| -> std::future::Ready<()> { panic!("in making") });
        assert_eq!(task.join().unwrap_err().message(), Some("in making"));
        // The thread goes on.
        assert_eq!(on_tokio(|| async { 1 }), 1);
    });
}

/// Says that it was dropped.
struct Tells(mpsc::Sender<()>);

impl Drop for Tells {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[test]
fn killing_the_fiber_aborts_the_task() {
    run(|| {
        let never = || {
            let (send, dropped) = mpsc::channel();
            let (begin, begun) = mpsc::channel();
            let make = move || async move {
                let _tells = Tells(send);
                begin.send(()).unwrap();
                std::future::pending::<()>().await;
            };
            (make, begun, dropped)
        };
        let (make, begun, dropped) = never();
        let waiter = spawn(move || on_tokio(make));
        yield_now();
        begun.recv().unwrap();
        waiter.kill();
        assert!(waiter.join().unwrap_err().is_killed());
        let gone = |dropped: mpsc::Receiver<()>| warren_hub::offload(move || _ = dropped.recv());
        gone(dropped);

        // A timeout, and dropping the task, do the same.
        let (make, _begun, dropped) = never();
        assert!(with_timeout(Duration::from_millis(20), || on_tokio(make)).is_err());
        gone(dropped);
        let (make, _begun, dropped) = never();
        drop(spawn_on_tokio(make));
        gone(dropped);
    });
}

#[test]
fn async_code_on_tokio_awaits_fibers_of_a_hub() {
    run(|| {
        let hub = warren_hub::handle();
        // There and back: a fiber parks on tokio, which awaits a fiber of this very hub, which sleeps.
        let answer = on_tokio(move || async move {
            let on_hub = hub.spawn(|| {
                sleep(Duration::from_millis(5));
                warren_hub::current().is_some()
            });
            on_hub.unwrap().await.unwrap()
        });
        assert!(answer);
    });
}

#[test]
fn fibers_talk_to_sockets_of_tokio() {
    run(|| {
        let addr = on_tokio(|| async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            handle().spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut word = [0; 5];
                stream.read_exact(&mut word).await.unwrap();
                word.reverse();
                stream.write_all(&word).await.unwrap();
            });
            addr
        });
        let stream = warren_hub::net::TcpStream::connect(addr).unwrap();
        io::Write::write_all(&mut &stream, b"abcde").unwrap();
        assert_eq!(io::read_to_string(&stream).unwrap(), "edcba");
    });
}

#[test]
fn reqwest_talks_to_a_server_on_fibers() {
    run(|| {
        let server = http::Server::start(0);
        let url = format!("http://{}", server.addr);
        let client = on_tokio(|| async { reqwest::Client::builder().build().unwrap() });
        // Many at once, each a fiber that reads as blocking code.
        let fibers = (0..10).map(|number| {
            let (client, url) = (client.clone(), url.clone());
            spawn(move || {
                let body = format!("request {number}");
                on_tokio(move || async move {
                    let sent = client.post(format!("{url}/echo")).body(body.clone()).send().await;
                    let response = sent.unwrap();
                    assert_eq!(response.status(), 200);
                    assert_eq!(response.text().await.unwrap(), body);
                });
            })
        });
        for ended in join_all(fibers) {
            ended.unwrap();
        }
        let status = spawn_on_tokio(move || async move {
            client.get(format!("{url}/nothing")).send().await.unwrap().status().as_u16()
        });
        assert_eq!(future::wait(status).unwrap(), 404);
        server.stop();
    });
}

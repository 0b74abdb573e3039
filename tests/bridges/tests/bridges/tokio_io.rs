//! tokio's I/O traits, without its runtime.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use warren_hub::net::UnixStream;
use warren_hub::{future, pipe, run};

use super::{connected, noise};

#[test]
fn a_proxy_of_tokios_making_runs_on_a_fiber() {
    run(|| {
        let (mut client, mut front) = connected();
        let (mut back, mut server) = connected();
        let proxy =
            future::spawn(async move { copy_bidirectional(&mut front, &mut back).await.unwrap() });
        let echo = future::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(&mut server);
            tokio::io::copy(&mut reader, &mut writer).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        let sent = noise(1 << 20);
        let mut got = Vec::new();
        future::wait(async {
            let (mut reader, mut writer) = tokio::io::split(&mut client);
            let write = async {
                writer.write_all(&sent).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            tokio::join!(write, async { reader.read_to_end(&mut got).await.unwrap() });
        });
        assert!(sent == got);
        let size = sent.len() as u64;
        assert_eq!(proxy.join().unwrap(), (size, size));
        echo.join().unwrap();
    });
}

#[test]
fn lines_are_read_from_unix_streams_and_pipes() {
    run(|| {
        let (one, mut other) = UnixStream::pair().unwrap();
        let (reader, mut writer) = pipe::pipe().unwrap();
        future::wait(async move {
            other.write_all(b"one\ntwo\n").await.unwrap();
            AsyncWriteExt::shutdown(&mut other).await.unwrap();
            let mut lines = BufReader::new(one).lines();
            assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("one"));
            assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("two"));
            assert_eq!(lines.next_line().await.unwrap(), None);
            writer.write_all(b"three\n").await.unwrap();
            drop(writer);
            let mut lines = BufReader::new(reader).lines();
            assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("three"));
            assert_eq!(lines.next_line().await.unwrap(), None);
        });
    });
}

#[test]
fn a_peer_that_has_gone_is_an_error_and_no_hang() {
    run(|| {
        let (mut one, other) = connected();
        drop(other);
        future::wait(async move {
            assert_eq!(one.read(&mut [0; 8]).await.unwrap(), 0);
            let big = noise(1 << 20);
            let mut refused = one.write_all(&big).await;
            while refused.is_ok() {
                refused = one.write_all(&big).await;
            }
            // Twice is no error: there is nobody to tell.
            AsyncWriteExt::shutdown(&mut one).await.unwrap();
        });
    });
}

//! tungstenite, as written for blocking sockets, on both sides.

use tungstenite::{Error, Message, accept, client};
use warren_hub::net::{TcpListener, TcpStream};
use warren_hub::{join_all, run, spawn};

use super::noise;

#[test]
fn many_clients_talk_websocket_at_once() {
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let accepting = spawn(move || {
            for stream in listener.incoming().flatten() {
                spawn(move || {
                    let mut socket = accept(stream).unwrap();
                    loop {
                        match socket.read() {
                            Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                                socket.send(message).unwrap();
                            }
                            Ok(_) => {}
                            Err(Error::ConnectionClosed) => return,
                            Err(error) => panic!("{error}"),
                        }
                    }
                });
            }
        });
        let clients = (0..8).map(|number| {
            spawn(move || {
                let stream = TcpStream::connect(addr).unwrap();
                let (mut socket, response) = client("ws://localhost/echo", stream).unwrap();
                assert_eq!(response.status(), 101);
                let text = Message::text(format!("client {number}"));
                socket.send(text.clone()).unwrap();
                assert_eq!(socket.read().unwrap(), text);
                let big = Message::binary(noise(300_000));
                socket.send(big.clone()).unwrap();
                assert!(socket.read().unwrap() == big);
                socket.send(Message::Ping("there?".into())).unwrap();
                assert_eq!(socket.read().unwrap(), Message::Pong("there?".into()));
                socket.close(None).unwrap();
                while socket.read().is_ok() {}
            })
        });
        for ended in join_all(clients) {
            ended.unwrap();
        }
        accepting.kill();
    });
}

//! Two thousand clients and their server, all in one thread, by hand.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use warren_hub::selectors::{Backend, Epoll, Events, Poll, Selector, Uring};

const LINE: &[u8] = b"one line of text";

enum File {
    Listener(TcpListener),
    Server(TcpStream),
    Client(TcpStream),
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Listener(listener) => listener.as_fd(),
            Self::Server(stream) | Self::Client(stream) => stream.as_fd(),
        }
    }
}

/// Each client sends a line, and goes when it has come back.
fn echoes<B: Backend>(clients: usize) {
    let mut selector = Selector::<B, Rc<File>, ()>::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    selector.register(Rc::new(File::Listener(listener)), Events::READ, ()).unwrap();
    let (mut waiting, mut started, mut echoed, mut ended) = (Vec::new(), 0, 0, 0);
    while ended < clients {
        // One at a time, as the system keeps only so many that are not accepted.
        if started < clients {
            let stream = TcpStream::connect(addr).unwrap();
            stream.set_nonblocking(true).unwrap();
            let file = Rc::new(File::Client(stream));
            selector.register(file.clone(), Events::WRITE, ()).unwrap();
            selector.modify(&*file, Events::READ, ()).unwrap();
            waiting.push(file);
            started += 1;
            if started == clients {
                for file in waiting.drain(..) {
                    let File::Client(stream) = &*file else { continue };
                    assert_eq!((&*stream).write(LINE).unwrap(), LINE.len());
                }
            }
        }
        let connecting = started < clients;
        let timeout = if connecting { Duration::ZERO } else { Duration::from_secs(60) };
        let ready = selector.select(Some(timeout)).unwrap();
        let ready: Vec<_> = ready.into_iter().map(|(key, _)| key.clone()).collect();
        assert!(connecting || !ready.is_empty(), "nothing happens");
        for key in ready {
            let mut buffer = [0; 64];
            match &*key.fileobj {
                File::Listener(listener) => loop {
                    match listener.accept() {
                        Ok((stream, _)) => {
                            stream.set_nonblocking(true).unwrap();
                            let file = Rc::new(File::Server(stream));
                            selector.register(file, Events::READ, ()).unwrap();
                        }
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => panic!("{error}"),
                    }
                },
                File::Client(stream) => {
                    let mut stream = stream;
                    let count = stream.read(&mut buffer).unwrap();
                    assert_eq!(&buffer[..count], LINE);
                    echoed += 1;
                    selector.unregister(&*key.fileobj).unwrap();
                }
                File::Server(stream) => {
                    let mut stream = stream;
                    match stream.read(&mut buffer).unwrap() {
                        0 => {
                            ended += 1;
                            selector.unregister(&*key.fileobj).unwrap();
                        }
                        count => assert_eq!(stream.write(&buffer[..count]).unwrap(), count),
                    }
                }
            }
        }
    }
    assert_eq!((echoed, selector.get_map().len()), (clients, 1));
}

/// As many clients as there are descriptors for, two each, when tests run beside each other.
fn clients(wanted: usize) -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let room = limit.current.map_or(wanted, |most| most as usize / 10);
    wanted.min(room)
}

#[test]
fn two_thousand_clients_by_epoll() {
    echoes::<Epoll>(clients(2000));
}

#[test]
fn two_thousand_clients_by_io_uring() {
    echoes::<Uring>(clients(2000));
}

#[test]
fn some_clients_by_poll() {
    echoes::<Poll>(clients(200));
}

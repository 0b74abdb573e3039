//! No descriptor is left behind. A program of its own, because all tests of a program share one table.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use warren_hub::signal::Signal;
use warren_hub::sync::Queue;
use warren_hub::{run, sleep};
use warren_reactor::stdio::StandardIo;
use warren_reactor::{
    ChildFd, DatagramProtocol, DatagramTransport, ErrorOutput, ProcessCommand, ProcessProtocol,
    ProcessReason, Protocol, Reason, Transport, get_process_output, listen_udp, spawn_process,
};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

struct Ended(Rc<Queue<()>>);

impl ProcessProtocol for Ended {
    fn process_ended(&mut self, _reason: &ProcessReason) {
        self.0.put(()).unwrap();
    }
}

impl Protocol for Ended {
    fn connection_made(&mut self, transport: &Transport) {
        transport.write(b"hello");
    }
    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) {}
    fn connection_lost(&mut self, _reason: &Reason) {
        self.0.put(()).unwrap();
    }
}

impl DatagramProtocol for Ended {
    fn datagram_received(&mut self, t: &DatagramTransport, _data: &[u8], _from: SocketAddr) {
        t.stop_listening();
    }
    fn stop_protocol(&mut self) {
        self.0.put(()).unwrap();
    }
}

fn processes(ended: &Rc<Queue<()>>) {
    let shell = |script: &str| ProcessCommand::new("sh").args(["-c", script]);
    for round in 0..20 {
        let command = match round % 4 {
            0 => ProcessCommand::new("cat").child_fd(5, ChildFd::Read),
            1 => shell("echo x; exec sleep 1000").child_fd(4, ChildFd::Write),
            2 => shell("exec sleep 1000").use_pty(true),
            _ => shell("exit 1"),
        };
        let transport = spawn_process(Box::new(Ended(ended.clone())), command).unwrap();
        transport.write(b"something");
        match round % 4 {
            0 => transport.close_stdin(),
            3 => {}
            _ => transport.signal_process(Signal::KILL).unwrap(),
        }
        ended.get().unwrap();
    }
    assert!(
        get_process_output(ProcessCommand::new("/no/such"), ErrorOutput::Fails).wait().is_err()
    );
    // Their own children are none of ours, and no zombies either.
    let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    assert_eq!(children.trim(), "", "children are left");
}

fn standard_io(ended: &Rc<Queue<()>>) {
    for round in 0..20 {
        let (input, output) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        let io = StandardIo::new().stdin(input.0).stdout(output.1);
        let transport = io.start(Box::new(Ended(ended.clone()))).unwrap();
        match round % 3 {
            0 => transport.lose_connection(),
            1 => transport.abort_connection(),
            _ => drop(input.1),
        }
        ended.get().unwrap();
    }
}

fn datagrams(ended: &Rc<Queue<()>>) {
    for round in 0..20 {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let port = listen_udp(any, Box::new(Ended(ended.clone()))).unwrap();
        if round % 2 == 0 {
            port.transport().write(b"stop", port.host()).unwrap();
        } else {
            port.stop_listening();
        }
        ended.get().unwrap();
    }
}

#[test]
fn nothing_is_left_behind() {
    let ended = || Rc::new(Queue::unbounded());
    // What is opened once for all.
    run(move || {
        let ended = ended();
        processes(&ended);
        standard_io(&ended);
        datagrams(&ended);
        let before = descriptors();
        processes(&ended);
        standard_io(&ended);
        datagrams(&ended);
        assert_eq!(descriptors(), before);
    });
    // Nor by a hub that ends with all of it open.
    let before = descriptors();
    let child = run(|| {
        let ended = Rc::new(Queue::unbounded());
        let (input, output) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        let io = StandardIo::new().stdin(input.0).stdout(output.1);
        io.start(Box::new(Ended(ended.clone()))).unwrap();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let _port = listen_udp(any, Box::new(Ended(ended.clone()))).unwrap();
        let command = ProcessCommand::new("sleep").arg("1000");
        let transport = spawn_process(Box::new(Ended(ended)), command).unwrap();
        sleep(Duration::from_millis(1));
        transport.pid().unwrap()
    });
    assert_eq!(descriptors(), before);
    let pid = rustix::process::Pid::from_raw(child as i32).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap();
}

"""The six tutorials, as separate programs: who receives what."""

import pytest

pytestmark = pytest.mark.usefixtures("clean")


def test_1_hello_world(start):
    start("send").finish()
    receiver = start("receive")
    receiver.expect("waiting", "received Hello World!")
    start("send").finish()
    receiver.expect("received Hello World!")


def test_2_work_queue_dispatches_fairly(start):
    workers = [start("worker"), start("worker")]
    for worker in workers:
        worker.expect("waiting")
    start("new_task", "long", "one.").finish()
    first = next_to_begin(workers)
    other = workers[1 - workers.index(first)]
    first.expect("began long one. redelivered=False")
    # While one is busy, the other gets all the rest: nobody is given more than one unacknowledged task.
    for number in range(3):
        start("new_task", f"short {number}").finish()
        other.expect(f"began short {number} redelivered=False", f"done short {number}")
    assert first.silent()
    first.tell()
    first.expect("done long one.")


def test_2_work_queue_shares_tasks_in_turn(start):
    for number in range(4):
        start("new_task", f"task {number}").finish()
    worker = start("worker")
    worker.expect("waiting")
    for number in range(4):
        worker.expect(f"began task {number} redelivered=False", f"done task {number}")


def test_2_a_killed_workers_task_goes_to_another(start):
    doomed = start("worker")
    doomed.expect("waiting")
    start("new_task", "a task...").finish()
    doomed.expect("began a task... redelivered=False")
    other = start("worker")
    other.expect("waiting")
    doomed.kill()
    other.expect("began a task... redelivered=True")
    for _ in range(3):
        other.tell()
    other.expect("done a task...")


def next_to_begin(workers):
    while True:
        for worker in workers:
            if not worker.silent():
                return worker


def test_3_publish_subscribe(start):
    start("emit_log", "nobody", "listens").finish()
    receivers = [start("receive_logs"), start("receive_logs")]
    for receiver in receivers:
        receiver.expect("waiting")
    start("emit_log", "to", "all").finish()
    start("emit_log").finish()
    for receiver in receivers:
        receiver.expect("received to all", "received info: Hello World!")
        assert receiver.silent()


def test_4_routing(start):
    errors = start("receive_logs_direct", "error")
    everything = start("receive_logs_direct", "info", "warning", "error")
    errors.expect("waiting")
    everything.expect("waiting")
    start("emit_log_direct", "info", "all is well").finish()
    start("emit_log_direct", "error", "Run. Run. Or it will explode.").finish()
    start("emit_log_direct", "debug", "nobody wants to know").finish()
    start("emit_log_direct", "warning", "the last").finish()
    errors.expect("received error:Run. Run. Or it will explode.")
    everything.expect(
        "received info:all is well",
        "received error:Run. Run. Or it will explode.",
        "received warning:the last",
    )
    assert errors.silent()


def test_5_topics(start):
    receivers = {
        "all": start("receive_logs_topic", "#"),
        "kern": start("receive_logs_topic", "kern.*"),
        "critical": start("receive_logs_topic", "*.critical"),
        "either": start("receive_logs_topic", "kern.*", "*.critical"),
    }
    for receiver in receivers.values():
        receiver.expect("waiting")
    start("emit_log_topic", "kern.critical", "A critical kernel error").finish()
    start("emit_log_topic", "cron.critical", "late").finish()
    start("emit_log_topic", "kern.info", "hello").finish()
    start("emit_log_topic", "kern.info.more", "three words").finish()
    start("emit_log_topic", "one.two.three.critical", "four words").finish()
    start("emit_log_topic", "kern.critical", "end").finish()
    both, cron, kern, end = (
        "received kern.critical:A critical kernel error",
        "received cron.critical:late",
        "received kern.info:hello",
        "received kern.critical:end",
    )
    receivers["all"].expect(
        both,
        cron,
        kern,
        "received kern.info.more:three words",
        "received one.two.three.critical:four words",
        end,
    )
    receivers["kern"].expect(both, kern, end)
    receivers["critical"].expect(both, cron, end)
    # Two bindings match, and still one message arrives.
    receivers["either"].expect(both, cron, kern, end)


def test_6_rpc(start):
    server = start("rpc_server")
    server.expect("waiting")
    client = start("rpc_client", "30", "10")
    client.expect("got 832040", "got 55")
    client.finish()
    server.expect("fib(30)", "fib(10)")
    start("rpc_client", "7").expect("got 13")

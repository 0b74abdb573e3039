//! In which order services start and stop.

use std::cell::Cell;

use warren_reactor::service::{MultiService, Service, ServiceError};
use warren_reactor::{AnyError, Deferred};

use crate::said::yes;

scenarios! { on_hub:
    in_order_and_back
    stopping_waits_for_all
    trees_in_trees
    one_that_is_added_to_a_running_tree
    one_that_is_removed_from_a_running_tree
    names_are_unique
    found_by_name
}

/// Says what it is told. Stops when its job is through, if it has one.
struct Told {
    name: &'static str,
    job: Cell<Option<Deferred<()>>>,
}

fn told(name: &'static str) -> Told {
    Told { name, job: Cell::default() }
}

impl Service for Told {
    fn privileged_start_service(&self) -> Result<(), AnyError> {
        say!("privileged {}", self.name);
        Ok(())
    }

    fn start_service(&self) -> Result<(), AnyError> {
        say!("start {}", self.name);
        Ok(())
    }

    fn stop_service(&self) -> Deferred<()> {
        say!("stop {}", self.name);
        self.job.take().unwrap_or_else(|| Deferred::succeed(()))
    }
}

fn tree<const N: usize>(names: [&'static str; N]) -> MultiService {
    let tree = MultiService::new();
    for name in names {
        tree.add_named(name, told(name)).unwrap();
    }
    tree
}

fn start(tree: &MultiService) {
    tree.privileged_start_service().unwrap();
    tree.start_service().unwrap();
}

fn say_all_stopped(stopped: Deferred<(), ServiceError>) {
    let said = stopped.add_callback(|()| {
        say!("all stopped");
        Ok(())
    });
    drop(said);
}

fn in_order_and_back() {
    let tree = tree(["a", "b", "c"]);
    start(&tree);
    say_all_stopped(tree.stop_service());
}

fn stopping_waits_for_all() {
    let tree = MultiService::new();
    let [first, second] = ["a", "b"].map(|name| {
        let (job, resolver) = Deferred::<()>::pending();
        tree.add_named(name, Told { name, job: Cell::new(Some(job)) }).unwrap();
        resolver
    });
    start(&tree);
    say_all_stopped(tree.stop_service());
    say!("first job");
    first.callback(());
    say!("second job");
    second.callback(());
}

fn trees_in_trees() {
    let (outer, inner) = (tree(["a"]), tree(["b", "c"]));
    outer.add_service(inner).unwrap();
    outer.add_named("d", told("d")).unwrap();
    start(&outer);
    outer.stop_service().wait().unwrap();
}

fn one_that_is_added_to_a_running_tree() {
    let tree = tree(["a"]);
    start(&tree);
    let late = tree.add_named("b", told("b")).unwrap();
    say!("running {}", yes(late.is_running()));
    tree.stop_service().wait().unwrap();
}

fn one_that_is_removed_from_a_running_tree() {
    let tree = tree(["a", "b"]);
    start(&tree);
    let removed = tree.remove_service(&tree.get_service_named("a").unwrap());
    removed.wait().unwrap();
    say!("removed");
    tree.stop_service().wait().unwrap();
}

fn names_are_unique() {
    let tree = tree(["a"]);
    say!("second {}", yes(tree.add_named("a", told("a")).is_ok()));
}

fn found_by_name() {
    let tree = tree(["a", "b"]);
    say!("found {}", tree.get_service_named("b").unwrap().name().unwrap());
    say!("none {}", yes(tree.get_service_named("c").is_some()));
}

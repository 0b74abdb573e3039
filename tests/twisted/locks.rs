//! Who may go on, and when. A permit is a value, which is given back when it is dropped.

use std::cell::RefCell;
use std::rc::Rc;

use warren_reactor::{Deferred, DeferredLock, DeferredPermit, DeferredSemaphore, Failure};

use crate::said::{bad, deferred, end, pending, step, yes};

scenarios! { here:
    one_at_a_time
    run_gives_it_back
    run_gives_it_back_when_it_fails
    one_that_waits_is_cancelled
    a_run_that_waits_is_cancelled
    a_run_is_cancelled
    as_many_as_the_semaphore_has
    runs_within_a_semaphore
}

/// Permits in the order in which they were had.
type Held = Rc<RefCell<Vec<DeferredPermit>>>;

fn hold(held: &Held, acquired: Deferred<DeferredPermit>, line: String) {
    let held = held.clone();
    let said = acquired.add_callback(move |permit| {
        say!("{line}");
        held.borrow_mut().push(permit);
        Ok(())
    });
    drop(said);
}

fn release(held: &Held) {
    let permit = held.borrow_mut().remove(0);
    permit.release();
}

fn one_at_a_time() {
    let (lock, held) = (DeferredLock::new(), Held::default());
    for name in ["a", "b", "c"] {
        hold(&held, lock.acquire(), format!("{name} has it"));
    }
    for name in ["a", "b", "c"] {
        say!("{name} gives it back");
        release(&held);
    }
    say!("locked {}", yes(lock.is_locked()));
}

fn run_gives_it_back() {
    let lock = DeferredLock::new();
    let (job, fire) = deferred();
    let job = job.add_callback(step("job"));
    let first: Deferred<i64> = lock.run(move || job);
    let second = lock.run(|| {
        say!("second runs");
        Ok::<_, Failure>("none")
    });
    say!("waiting {}", lock.waiting());
    fire.callback(1);
    end(first);
    end(second);
    say!("locked {}", yes(lock.is_locked()));
}

fn run_gives_it_back_when_it_fails() {
    let lock = DeferredLock::new();
    end(lock.run(|| Err::<i64, _>(bad("bad"))));
    say!("locked {}", yes(lock.is_locked()));
    end(lock.run(|| Ok::<_, Failure>(2)));
}

fn one_that_waits_is_cancelled() {
    let lock = DeferredLock::new();
    let held = lock.acquire().wait().unwrap();
    let (second, third) = (lock.acquire(), lock.acquire());
    second.cancel();
    end(second.add_callback(|_| Ok("never")));
    say!("waiting {}", lock.waiting());
    hold(&Held::default(), third, "third has it".into());
    held.release();
}

fn a_run_that_waits_is_cancelled() {
    let lock = DeferredLock::new();
    let held = lock.acquire().wait().unwrap();
    let run = lock.run(|| Ok::<_, Failure>("never"));
    run.cancel();
    end(run);
    held.release();
    say!("locked {}", yes(lock.is_locked()));
}

fn a_run_is_cancelled() {
    let lock = DeferredLock::new();
    let (job, _resolver) = pending("job");
    let run = lock.run(move || job);
    run.cancel();
    end(run);
    say!("locked {}", yes(lock.is_locked()));
}

fn as_many_as_the_semaphore_has() {
    let (semaphore, held) = (DeferredSemaphore::new(2), Held::default());
    for name in ["a", "b", "c", "d"] {
        hold(&held, semaphore.acquire(), format!("{name} goes on"));
    }
    say!("tokens {} waiting {}", semaphore.tokens(), semaphore.waiting());
    release(&held);
    release(&held);
    say!("tokens {} waiting {}", semaphore.tokens(), semaphore.waiting());
    release(&held);
    say!("tokens {}", semaphore.tokens());
}

fn runs_within_a_semaphore() {
    let semaphore = DeferredSemaphore::new(2);
    let fire = [0, 1, 2, 3].map(|number| {
        let (job, fire) = Deferred::<&str>::pending();
        let run = semaphore.run(move || {
            say!("starts {number}");
            job
        });
        drop(run.add_callback(step("ended")));
        fire
    });
    let [nought, one, two, three] = fire;
    one.callback("one");
    nought.callback("nought");
    three.callback("three");
    two.callback("two");
    say!("tokens {}", semaphore.tokens());
}

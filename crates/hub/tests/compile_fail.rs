//! What must not compile: what belongs to a hub cannot leave it.

use warren_hub::sync::{
    AsyncResult, BoundedSemaphore, Channel, Condvar, Event, LifoQueue, Mutex, MutexGuard, Permit,
    PriorityQueue, Queue, RLock, RLockGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, Semaphore,
};
use warren_hub::{
    Group, HubHandle, Imap, JoinHandle, Pool, Receiver, RemoteJoin, Sender, SharedEvent,
    SharedPermit, SharedSemaphore, ThreadPool,
};

#[test]
fn what_belongs_to_a_hub_does_not_leave_it() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/compile_fail/*.rs");
}

/// Does not compile when a type implements the trait: then there are two answers to which `probe` is meant.
macro_rules! lacks {
    ($trait:ident: $($type:ty),+ $(,)?) => {$(
        const _: fn() = || {
            trait Probe<A> {
                fn probe() {}
            }
            struct Has;
            impl<T: ?Sized> Probe<()> for T {}
            impl<T: ?Sized + $trait> Probe<Has> for T {}
            let _ = <$type as Probe<_>>::probe;
        };
    )+};
}

// Given back on the hub they were taken on, and reached by no other.
lacks!(Send: MutexGuard<'_, u32>, Permit<'_>, RLockGuard<'_>, RwLockReadGuard<'_, u32>);
lacks!(Send: RwLockWriteGuard<'_, u32>, JoinHandle<u32>, Group, Pool, Imap<u32>);
// Shared by the fibers of one hub.
lacks!(Sync: AsyncResult<u32>, BoundedSemaphore, Channel<u32>, Condvar, Event, LifoQueue<u32>);
lacks!(Sync: Mutex<u32>, PriorityQueue<u32>, Queue<u32>, RLock, RwLock<u32>, Semaphore);
lacks!(Sync: Group, JoinHandle<u32>);

/// And these are for other threads.
#[test]
fn what_is_for_several_hubs_goes_to_them() {
    fn goes<T: Send + Sync>() {}
    goes::<(HubHandle, RemoteJoin<u32>, ThreadPool)>();
    goes::<(Sender<u32>, Receiver<u32>, SharedSemaphore, SharedPermit, SharedEvent)>();
}

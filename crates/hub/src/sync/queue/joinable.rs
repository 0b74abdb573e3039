//! [`JoinableQueue`].

use super::Queue;

/// A queue whose items can be reported as done, and waited for: as every queue here. gevent's `JoinableQueue`,
/// which is another name of `Queue` there too.
///
/// ```
/// use std::rc::Rc;
/// use warren_hub::{run, spawn, sync::JoinableQueue};
///
/// run(|| {
///     let jobs = Rc::new(JoinableQueue::unbounded());
///     for _ in 0..2 {
///         let jobs = jobs.clone();
///         spawn(move || {
///             for job in jobs.iter() {
///                 let _ = job;
///                 jobs.task_done();
///             }
///         });
///     }
///     for job in 0..10 {
///         jobs.put(job).unwrap();
///     }
///     jobs.join();
///     assert_eq!(jobs.unfinished_tasks(), 0);
/// });
/// ```
pub type JoinableQueue<T> = Queue<T>;

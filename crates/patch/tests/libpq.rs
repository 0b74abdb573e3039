//! PostgreSQL's C library, unmodified and loaded at run time, against a real server.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::rc::Rc;
use std::time::Duration;

use libloading::Library;
use support::{AT_ONCE, servers};
use warren_hub::{JoinError, TimedOut, join_all, run, sleep, spawn, with_timeout};
use warren_patch::patch_all;

mod support;

/// What the test needs of the library.
struct Libpq {
    connect: unsafe extern "C" fn(*const c_char) -> *mut c_void,
    status: unsafe extern "C" fn(*const c_void) -> c_int,
    error: unsafe extern "C" fn(*const c_void) -> *const c_char,
    exec: unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void,
    value: unsafe extern "C" fn(*const c_void, c_int, c_int) -> *const c_char,
    clear: unsafe extern "C" fn(*mut c_void),
    finish: unsafe extern "C" fn(*mut c_void),
    _library: Library,
}

impl Libpq {
    fn load() -> Self {
        // SAFETY: the library that its package has under this name, and its functions as its header declares
        // them; they are used while it is loaded.
        unsafe {
            let library = Library::new("libpq.so.5").unwrap();
            Self {
                connect: *library.get(b"PQconnectdb").unwrap(),
                status: *library.get(b"PQstatus").unwrap(),
                error: *library.get(b"PQerrorMessage").unwrap(),
                exec: *library.get(b"PQexec").unwrap(),
                value: *library.get(b"PQgetvalue").unwrap(),
                clear: *library.get(b"PQclear").unwrap(),
                finish: *library.get(b"PQfinish").unwrap(),
                _library: library,
            }
        }
    }
}

const OPTIONS: &str = "host=localhost user=postgres sslmode=disable gssencmode=disable";

/// A connection of the library.
struct Connection(Rc<Libpq>, *mut c_void);

impl Connection {
    fn open(library: &Rc<Libpq>, options: &str) -> Self {
        let options = CString::new(options).unwrap();
        // SAFETY: a string.
        let connection = Self(library.clone(), unsafe { (library.connect)(options.as_ptr()) });
        // SAFETY: a connection that is not finished.
        assert_eq!(unsafe { (library.status)(connection.1) }, 0, "{}", connection.error());
        connection
    }

    /// The first value of the answer.
    fn query(&self, query: &str) -> String {
        self.try_query(query).unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    fn try_query(&self, query: &str) -> Result<String, String> {
        let text = CString::new(query).unwrap();
        // SAFETY: a connection that is not finished, a string, and a result that is used before it is cleared.
        unsafe {
            let result = (self.0.exec)(self.1, text.as_ptr());
            let value = (self.0.value)(result, 0, 0);
            let value = match value.is_null() {
                true => Err(self.error()),
                false => Ok(CStr::from_ptr(value).to_str().unwrap().to_owned()),
            };
            (self.0.clear)(result);
            value
        }
    }

    fn error(&self) -> String {
        // SAFETY: a connection that is not finished.
        unsafe { CStr::from_ptr((self.0.error)(self.1)) }.to_string_lossy().into_owned()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: not used any more.
        unsafe { (self.0.finish)(self.1) }
    }
}

#[test]
fn a_hundred_queries_run_at_once() {
    support::watchdog();
    let Some(server) = servers::postgres() else { return };
    let options = format!("{OPTIONS} port={}", server.port);
    patch_all();
    run(move || {
        let library = Rc::new(Libpq::load());
        let control = Connection::open(&library, &options);
        control.query("SELECT pg_advisory_lock(1)");
        let queries: Vec<_> = (0..AT_ONCE)
            .map(|n| {
                let (library, options) = (library.clone(), options.clone());
                spawn(move || {
                    let connection = Connection::open(&library, &options);
                    let sleep = format!("SELECT {n} FROM pg_sleep(0.05)");
                    assert_eq!(connection.query(&sleep), n.to_string());
                    // Waits for the lock that is held; then all have it.
                    connection.query("SELECT pg_advisory_lock_shared(1)");
                })
            })
            .collect();
        // The server counts them: all wait there, and the hub goes on.
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        while control.query(waiting) != AT_ONCE.to_string() {
            sleep(Duration::from_millis(5));
        }
        assert_eq!(control.query("SELECT pg_advisory_unlock(1)"), "t");
        assert!(join_all(queries).iter().all(Result::is_ok));
        kill_in_a_query(&library, &options);
        time_out_in_a_query(&library, &options);
    });
}

/// C is not unwound: the query fails, the library cleans up after itself, and then the fiber ends.
fn kill_in_a_query(library: &Rc<Libpq>, options: &str) {
    let connection = Connection::open(library, options);
    let (reached, seen) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
    let (start, end) = (reached.clone(), seen.clone());
    let fiber = spawn(move || {
        start.set(true);
        let error = connection.try_query("SELECT pg_sleep(3600)").unwrap_err();
        assert!(error.contains("canceled"), "{error}");
        end.set(true);
        drop(connection);
        sleep(Duration::from_secs(3600));
    });
    while !reached.get() {
        sleep(Duration::from_millis(1));
    }
    fiber.kill();
    assert!(matches!(fiber.join(), Err(JoinError::Killed)));
    assert!(seen.get());
}

fn time_out_in_a_query(library: &Rc<Libpq>, options: &str) {
    let connection = Connection::open(library, options);
    let result = with_timeout(Duration::from_millis(20), move || {
        let error = connection.try_query("SELECT pg_sleep(3600)").unwrap_err();
        drop(connection);
        sleep(Duration::from_secs(3600));
        error
    });
    assert_eq!(result, Err(TimedOut));
}

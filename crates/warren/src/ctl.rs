//! Commands that administer a running server, through its control socket.
//!
//! `warren users add` and `warren ctl add_user` are two ways to say the same [`Request`].

mod output;
mod rabbitmqctl;
mod server;

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Map, Value};
use warren_broker::admin::Request;

use crate::client;
pub(crate) use rabbitmqctl::Rabbitmqctl;
use server::Server;

/// What is administered.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Users and their passwords and tags.
    Users(Group<Users>),
    /// Virtual hosts.
    Vhosts(Group<Vhosts>),
    /// What users may configure, write to and read from.
    Permissions(Group<Permissions>),
    /// Which routing keys of a topic exchange users may use.
    TopicPermissions(Group<TopicPermissions>),
    /// Settings for the exchanges and queues whose names match.
    Policies(Group<Policies>),
    /// The same, the stricter value holding.
    OperatorPolicies(Group<Policies>),
    /// Limits of users and virtual hosts.
    Limits(Group<Limits>),
    /// Runtime parameters.
    Parameters(Group<Parameters>),
    /// Everything that is declared, as RabbitMQ's JSON.
    Definitions(Group<DefinitionsCommand>),
    /// Exchanges.
    Exchanges(Group<ListIn>),
    /// Bindings.
    Bindings(Group<ListIn>),
    /// Connections of clients.
    Connections(Group<Connections>),
    /// Channels of clients.
    Channels(Group<ListOf>),
    /// Consumers of queues.
    Consumers(Group<ListIn>),
    /// The firehose: copies of what passes through a virtual host, in amq.rabbitmq.trace.
    Trace(Group<Trace>),
    /// What runs.
    Status(Status),
}

/// A command, and the server that it is for.
#[derive(Args)]
pub(crate) struct Group<C: Subcommand> {
    #[command(flatten)]
    server: Server,
    #[command(subcommand)]
    command: C,
}

#[derive(Args)]
pub(crate) struct Status {
    #[command(flatten)]
    server: Server,
}

#[derive(Subcommand)]
pub(crate) enum Users {
    /// Show all users.
    List,
    /// Add a user. Without PASSWORD it is read from standard input.
    Add {
        name: String,
        password: Option<String>,
        /// A tag: administrator, monitoring, policymaker, management, impersonator; may be repeated
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<String>,
    },
    /// Delete a user, and close its connections.
    Delete { name: String },
    /// Set another password. Without PASSWORD it is read from standard input.
    ChangePassword { name: String, password: Option<String> },
    /// Let the user log in with no password any more.
    ClearPassword { name: String },
    /// Set other tags in place of those the user has.
    SetTags { name: String, tags: Vec<String> },
    /// Try a password. Without PASSWORD it is read from standard input.
    Authenticate { name: String, password: Option<String> },
}

#[derive(Subcommand)]
pub(crate) enum Vhosts {
    /// Show all virtual hosts.
    List,
    /// Add a virtual host.
    Add {
        name: String,
        #[arg(long, default_value = "")]
        description: String,
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<String>,
        /// The type of queues that are declared without one: classic, quorum or stream
        #[arg(long, value_name = "TYPE")]
        default_queue_type: Option<String>,
    },
    /// Delete a virtual host, with all that is in it.
    Delete { name: String },
}

/// Where.
#[derive(Args)]
pub(crate) struct Vhost {
    /// The virtual host
    #[arg(long, short = 'p', default_value = "/")]
    vhost: String,
}

/// Which permissions to show.
#[derive(Args)]
pub(crate) struct Whose {
    /// Only those of this user
    #[arg(long)]
    user: Option<String>,
    /// Only those in this virtual host
    #[arg(long, short = 'p')]
    vhost: Option<String>,
}

#[derive(Subcommand)]
pub(crate) enum Permissions {
    /// Show permissions.
    List(Whose),
    /// Set a user's permissions: three regular expressions.
    Set {
        #[command(flatten)]
        vhost: Vhost,
        user: String,
        configure: String,
        write: String,
        read: String,
    },
    /// Take a user's permissions away.
    Clear {
        #[command(flatten)]
        vhost: Vhost,
        user: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum TopicPermissions {
    /// Show topic permissions.
    List(Whose),
    /// Set a user's permissions for a topic exchange: two regular expressions for routing keys.
    Set {
        #[command(flatten)]
        vhost: Vhost,
        user: String,
        exchange: String,
        write: String,
        read: String,
    },
    /// Take them away, for one exchange or all.
    Clear {
        #[command(flatten)]
        vhost: Vhost,
        user: String,
        exchange: Option<String>,
    },
}

#[derive(Subcommand)]
pub(crate) enum Policies {
    /// Show policies.
    List(In),
    /// Set a policy: a regular expression for names, and a JSON object of settings.
    Set {
        #[command(flatten)]
        vhost: Vhost,
        name: String,
        pattern: String,
        definition: String,
        #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
        priority: i64,
        /// all, exchanges, queues, classic_queues, quorum_queues or streams
        #[arg(long, default_value = "all")]
        apply_to: String,
    },
    /// Take a policy away.
    Clear {
        #[command(flatten)]
        vhost: Vhost,
        name: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum Limits {
    /// Show limits of users and virtual hosts.
    List,
    /// Set limits of a user: a JSON object with max-connections, max-channels; -1 is none.
    User { name: String, limits: String },
    /// Set limits of a virtual host: a JSON object with max-connections, max-queues; -1 is none.
    Vhost { name: String, limits: String },
}

#[derive(Subcommand)]
pub(crate) enum Parameters {
    /// Show parameters.
    List(In),
    /// Set a parameter to a JSON value.
    Set {
        #[command(flatten)]
        vhost: Vhost,
        component: String,
        name: String,
        value: String,
    },
    /// Take a parameter away.
    Clear {
        #[command(flatten)]
        vhost: Vhost,
        component: String,
        name: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum DefinitionsCommand {
    /// Write definitions to FILE, or to standard output.
    Export {
        /// Only what is in this virtual host
        #[arg(long, short = 'p')]
        vhost: Option<String>,
        file: Option<PathBuf>,
    },
    /// Take definitions in from FILE, or from standard input: all or none.
    Import {
        /// Into this virtual host: exchanges, queues, bindings and policies without one
        #[arg(long, short = 'p')]
        vhost: Option<String>,
        file: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
pub(crate) enum Trace {
    /// Copy every publish and every delivery.
    On {
        #[command(flatten)]
        vhost: Vhost,
    },
    /// Stop it.
    Off {
        #[command(flatten)]
        vhost: Vhost,
    },
}

#[derive(Subcommand)]
pub(crate) enum ListOf {
    /// Show all.
    List,
}

#[derive(Subcommand)]
pub(crate) enum ListIn {
    /// Show all, or those of one virtual host.
    List(In),
}

/// Where, or everywhere.
#[derive(Args)]
pub(crate) struct In {
    /// Only those in this virtual host
    #[arg(long, short = 'p')]
    vhost: Option<String>,
}

#[derive(Subcommand)]
pub(crate) enum Connections {
    /// Show all.
    List,
    /// Close a connection, by its pid in the list.
    Close {
        pid: String,
        #[arg(default_value = "closed by an operator")]
        reason: String,
    },
}

/// `warren queues`.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Queues {
    #[command(subcommand)]
    command: Option<QueuesCommand>,
    #[command(flatten)]
    server: client::Server,
    /// Show these queues, of any AMQP server
    #[arg(required = true)]
    queues: Vec<String>,
}

#[derive(Subcommand)]
enum QueuesCommand {
    /// Show all queues of a Warren that runs on this machine.
    List {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        of: In,
    },
    /// Delete a queue.
    Delete {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        vhost: Vhost,
        name: String,
        #[arg(long)]
        if_empty: bool,
        #[arg(long)]
        if_unused: bool,
    },
    /// Drop the messages that are ready.
    Purge {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        vhost: Vhost,
        name: String,
    },
}

impl Queues {
    pub(crate) fn run(self) -> Result<()> {
        match self.command {
            None => client::show_queues(self.server, self.queues),
            Some(QueuesCommand::List { server, of }) => {
                server.show(&Request::ListQueues { vhost: of.vhost }, output::QUEUES)
            }
            Some(QueuesCommand::Delete { server, vhost, name, if_empty, if_unused }) => {
                let vhost = vhost.vhost;
                server.show(&Request::DeleteQueue { vhost, name, if_empty, if_unused }, &[])
            }
            Some(QueuesCommand::Purge { server, vhost, name }) => {
                server.show(&Request::PurgeQueue { vhost: vhost.vhost, name }, &[])
            }
        }
    }
}

impl Command {
    pub(crate) fn run(self) -> Result<()> {
        use Request as R;
        match self {
            Self::Users(of) => {
                users(of.command).and_then(|ask| of.server.show(&ask, output::USERS))
            }
            Self::Vhosts(of) => of.server.show(&vhosts(of.command), output::VHOSTS),
            Self::Permissions(of) => of.server.show(&permissions(of.command), output::PERMISSIONS),
            Self::TopicPermissions(of) => {
                of.server.show(&topic_permissions(of.command), output::TOPIC_PERMISSIONS)
            }
            Self::Policies(of) => of.server.show(&policies(of.command, false)?, output::POLICIES),
            Self::OperatorPolicies(of) => {
                of.server.show(&policies(of.command, true)?, output::POLICIES)
            }
            Self::Limits(of) => match of.command {
                Limits::List => {
                    of.server.show(&R::ListUserLimits { name: None }, &["user", "limits"])?;
                    of.server.show(&R::ListVhostLimits { vhost: None }, &["vhost", "limits"])
                }
                Limits::User { name, limits } => {
                    of.server.show(&R::SetUserLimits { name, limits: object(&limits)? }, &[])
                }
                Limits::Vhost { name, limits } => {
                    let limits = object(&limits)?;
                    of.server.show(&R::SetVhostLimits { vhost: name, limits }, &[])
                }
            },
            Self::Parameters(of) => of.server.show(&parameters(of.command)?, output::PARAMETERS),
            Self::Definitions(of) => match of.command {
                DefinitionsCommand::Export { vhost, file } => of.server.export(vhost, file),
                DefinitionsCommand::Import { vhost, file } => of.server.import(vhost, file),
            },
            Self::Exchanges(Group { server, command: ListIn::List(of) }) => {
                server.show(&R::ListExchanges { vhost: of.vhost }, output::EXCHANGES)
            }
            Self::Bindings(Group { server, command: ListIn::List(of) }) => {
                server.show(&R::ListBindings { vhost: of.vhost }, output::BINDINGS)
            }
            Self::Connections(of) => match of.command {
                Connections::List => of.server.show(&R::ListConnections, output::CONNECTIONS),
                Connections::Close { pid, reason } => {
                    of.server.show(&R::CloseConnection { pid, reason }, &[])
                }
            },
            Self::Channels(of) => of.server.show(&R::ListChannels, output::CHANNELS),
            Self::Consumers(Group { server, command: ListIn::List(of) }) => {
                server.show(&R::ListConsumers { vhost: of.vhost }, output::CONSUMERS)
            }
            Self::Trace(of) => of.server.show(&trace(of.command), &[]),
            Self::Status(of) => of.server.show(&R::Status, &[]),
        }
    }
}

fn trace(command: Trace) -> Request {
    match command {
        Trace::On { vhost } => Request::TraceOn { vhost: vhost.vhost },
        Trace::Off { vhost } => Request::TraceOff { vhost: vhost.vhost },
    }
}

fn users(command: Users) -> Result<Request> {
    use Request as R;
    Ok(match command {
        Users::List => R::ListUsers,
        Users::Add { name, password, tags } => {
            R::AddUser { name, password: secret(password)?, tags }
        }
        Users::Delete { name } => R::DeleteUser { name },
        Users::ChangePassword { name, password } => {
            R::ChangePassword { name, password: secret(password)? }
        }
        Users::ClearPassword { name } => R::ClearPassword { name },
        Users::SetTags { name, tags } => R::SetUserTags { name, tags },
        Users::Authenticate { name, password } => {
            R::AuthenticateUser { name, password: secret(password)? }
        }
    })
}

fn vhosts(command: Vhosts) -> Request {
    match command {
        Vhosts::List => Request::ListVhosts,
        Vhosts::Add { name, description, tags, default_queue_type } => {
            Request::AddVhost { name, description, tags, default_queue_type }
        }
        Vhosts::Delete { name } => Request::DeleteVhost { name },
    }
}

fn permissions(command: Permissions) -> Request {
    match command {
        Permissions::List(Whose { user, vhost }) => Request::ListPermissions { user, vhost },
        Permissions::Set { vhost, user, configure, write, read } => {
            Request::SetPermissions { user, vhost: vhost.vhost, configure, write, read }
        }
        Permissions::Clear { vhost, user } => {
            Request::ClearPermissions { user, vhost: vhost.vhost }
        }
    }
}

fn topic_permissions(command: TopicPermissions) -> Request {
    match command {
        TopicPermissions::List(Whose { user, vhost }) => {
            Request::ListTopicPermissions { user, vhost }
        }
        TopicPermissions::Set { vhost, user, exchange, write, read } => {
            Request::SetTopicPermissions { user, vhost: vhost.vhost, exchange, write, read }
        }
        TopicPermissions::Clear { vhost, user, exchange } => {
            Request::ClearTopicPermissions { user, vhost: vhost.vhost, exchange }
        }
    }
}

fn policies(command: Policies, operator: bool) -> Result<Request> {
    Ok(match command {
        Policies::List(In { vhost }) => Request::ListPolicies { vhost, operator },
        Policies::Set { vhost, name, pattern, definition, priority, apply_to } => {
            Request::SetPolicy {
                vhost: vhost.vhost,
                name,
                pattern,
                definition: object(&definition)?,
                priority,
                apply_to,
                operator,
            }
        }
        Policies::Clear { vhost, name } => {
            Request::ClearPolicy { vhost: vhost.vhost, name, operator }
        }
    })
}

fn parameters(command: Parameters) -> Result<Request> {
    Ok(match command {
        Parameters::List(In { vhost }) => Request::ListParameters { vhost },
        Parameters::Set { vhost, component, name, value } => {
            Request::SetParameter { vhost: vhost.vhost, component, name, value: json(&value)? }
        }
        Parameters::Clear { vhost, component, name } => {
            Request::ClearParameter { vhost: vhost.vhost, component, name }
        }
    })
}

fn json(text: &str) -> Result<Value> {
    serde_json::from_str(text).with_context(|| format!("'{text}' is no JSON"))
}

fn object(text: &str) -> Result<Map<String, Value>> {
    match json(text)? {
        Value::Object(map) => Ok(map),
        _ => bail!(
            "'{text}' is no JSON object: write names and values, as in {{\"max-length\": 10}}"
        ),
    }
}

/// A password, best not on the command line, where others see it.
fn secret(given: Option<String>) -> Result<String> {
    if let Some(given) = given {
        return Ok(given);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

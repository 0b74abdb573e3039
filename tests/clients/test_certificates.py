"""Users by their certificates, with pika: which name in a certificate is the user's, and who is refused in which words."""

import datetime
import ipaddress
import os
import pathlib
import socket
import ssl
import subprocess
import uuid

import pika
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import NameAttribute, ObjectIdentifier, RelativeDistinguishedName
from cryptography.x509.name import _ASN1Type as Asn1
from cryptography.x509.oid import NameOID as Oid

FILES = pathlib.Path(os.environ.get("WARREN_TEST_CERTIFICATES", "/none"))
IS_WARREN = "rabbitmqctl" not in os.environ["WARREN_TEST_CTL"]
PATIENCE_S = 90
REFUSED = "Login was refused using authentication mechanism EXTERNAL. For details see the broker logfile."

CN, O, OU, C = Oid.COMMON_NAME, Oid.ORGANIZATION_NAME, Oid.ORGANIZATIONAL_UNIT_NAME, Oid.COUNTRY_NAME


def part(*pairs):
    """A part of a name: (type, value), or (type, value, kind of string)."""
    return RelativeDistinguishedName(
        [NameAttribute(pair[0], pair[1], *(pair[2:] or [Asn1.UTF8String]), _validate=False) for pair in pairs])


class Authority:
    """The one whom the broker trusts, or another."""

    def __init__(self, folder, known=True):
        self.folder = folder
        if known:
            self.key = serialization.load_pem_private_key((FILES / "ca.key").read_bytes(), None)
            self.name = x509.load_pem_x509_certificate((FILES / "ca.pem").read_bytes()).subject
        else:
            self.key = ec.generate_private_key(ec.SECP256R1())
            self.name = x509.Name([part((CN, "nobody"))])

    def certify(self, parts, others=(), ended=False):
        """A certificate and its key in a file."""
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        builder = (
            x509.CertificateBuilder().subject_name(x509.Name(parts)).issuer_name(self.name).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - 2 * day)
            .not_valid_after(now - day if ended else now + day))
        if others:
            builder = builder.add_extension(x509.SubjectAlternativeName(others), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        file = self.folder / f"{uuid.uuid4().hex}.pem"
        pem = serialization.Encoding.PEM
        file.write_bytes(certificate.public_bytes(pem) + key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        return file


def context(file=None, **versions):
    made = ssl.create_default_context(cafile=FILES / "ca.pem")
    if file:
        made.load_cert_chain(file)
    for name, version in versions.items():
        setattr(made, name, version)
    return made


def connect(file=None, credentials=None, **versions):
    url = pika.URLParameters(os.environ["WARREN_TEST_AMQPS_URL"])
    return pika.BlockingConnection(pika.ConnectionParameters(
        url.host, url.port, "/", credentials or pika.credentials.ExternalCredentials(),
        ssl_options=pika.SSLOptions(context(file, **versions), "localhost"), blocked_connection_timeout=PATIENCE_S))


def manage(*words):
    script = f'{os.environ["WARREN_TEST_CTL"]} "$@"'
    subprocess.run(["sh", "-c", script, "sh", *words], check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE_S)


def login_from(name, kind="", index=""):
    """Which name is the user's, from now on."""
    env = {**os.environ, "FROM": name, "KIND": kind, "INDEX": str(index)}
    subprocess.run(os.environ["WARREN_TEST_LOGIN_FROM"], shell=True, check=True, stdout=subprocess.DEVNULL, env=env, timeout=PATIENCE_S)


@pytest.fixture(scope="module", autouse=True)
def as_before():
    yield
    login_from("common_name")


class Heard:
    """The events of refused logins: the broker's own words."""

    def __init__(self):
        self.connection = pika.BlockingConnection(pika.URLParameters(os.environ["WARREN_TEST_AMQP_URL"]))
        self.channel = self.connection.channel()
        self.queue = self.channel.queue_declare("", exclusive=True).method.queue
        self.channel.queue_bind(self.queue, "amq.rabbitmq.event", "user.authentication.failure")

    def next(self):
        """The name and the reason of the next."""
        for _, properties, _ in self.channel.consume(self.queue, auto_ack=True, inactivity_timeout=PATIENCE_S):
            self.channel.cancel()
            return properties.headers.get("name"), "".join(map(chr, properties.headers["error"]))

    def refused(self, file=None):
        """Logs in by a certificate, of a user whom nobody knows."""
        with pytest.raises(pika.exceptions.ProbableAuthenticationError, match=REFUSED):
            connect(file)
        return self.next()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()


def expected(name):
    """What is heard of a login by this name, or by none."""
    if name is None:
        return None, "no name found"
    # The octets of the text, one by one.
    return name, f"user '{name}' - invalid credentials".encode().decode("latin1")


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


# What the subject is, and what the user is called by the whole of it, and by its common names.
SUBJECTS = [
    ([part((C, "DE", Asn1.PrintableString)), part((O, "Acme, Inc.")), part((OU, "R+D")), part((CN, "ann"))],
     "CN=ann,OU=R\\+D,O=Acme\\, Inc.,C=DE", "ann"),
    ([part((CN, "first")), part((CN, "second"))], "CN=second,CN=first", "first,second"),
    ([part((O, "one"), (CN, "two")), part((OU, "three"))], "OU=three,CN=two+O=one", "two"),
    ([part((CN, " a "))], "CN=\\ a\\ ", " a "),
    ([part((CN, "  a  "))], "CN=\\  a \\ ", "  a  "),
    ([part((CN, " "))], "CN=\\ ", " "),
    ([part((CN, "#1#"))], "CN=\\#1#", "#1#"),
    ([part((CN, "a\"<>;\\=/+,"))], "CN=a\\\"\\<\\>\\;\\\\=/\\+\\,", "a\"<>;\\=/+,"),
    ([part((CN, "a=b"))], "CN=a=b", "a=b"),
    ([part((CN, "ä~\n\x7f"))], "CN=\\C3\\A4\\7E\\0A\\7F", "ä~\n\x7f"),
    ([part((CN, "plain", Asn1.PrintableString))], "CN=plain", "plain"),
    ([part((CN, "grün", Asn1.BMPString))], "CN=gr\\C3\\BCn", "grün"),
    ([part((CN, "grün", Asn1.UniversalString))], "CN=gr\\C3\\BCn", "grün"),
    # The library writes its octets in UTF-8, and Latin 1 is read.
    ([part((CN, "ü", Asn1.T61String))], "CN=\\C3\\83\\C2\\BC", "Ã¼"),
    ([part((Oid.DOMAIN_COMPONENT, "example", Asn1.IA5String)), part((CN, "x"))], "CN=x,DC=example", "x"),
    ([part((Oid.EMAIL_ADDRESS, "a@b.example", Asn1.IA5String)), part((CN, "x"))], "CN=x,EMAILADDRESS=a@b.example", "x"),
    ([part((Oid.USER_ID, "u1")), part((CN, "x"))], "CN=x,UID=u1", "x"),
    ([part((Oid.SERIAL_NUMBER, "17", Asn1.PrintableString)), part((CN, "x"))], "CN=x,SERIALNUMBER=17", "x"),
    ([part((Oid.LOCALITY_NAME, "Ulm")), part((Oid.STATE_OR_PROVINCE_NAME, "BW")), part((Oid.STREET_ADDRESS, "Weg 1")), part((CN, "x"))],
     "CN=x,2.5.4.9=Weg 1,ST=BW,L=Ulm", "x"),
    ([part((Oid.SURNAME, "s")), part((Oid.GIVEN_NAME, "g")), part((Oid.INITIALS, "i")), part((Oid.GENERATION_QUALIFIER, "q")),
      part((Oid.TITLE, "t")), part((Oid.PSEUDONYM, "p")), part((Oid.DN_QUALIFIER, "d", Asn1.PrintableString))],
     "2.5.4.46=d,PSEUDONYM=p,TITLE=t,GENERATIONQUALIFIER=q,INITIALS=i,GIVENNAME=g,SN=s", None),
    ([part((ObjectIdentifier("1.3.6.1.4.1.311.60.2.1.3"), "DE", Asn1.PrintableString)), part((CN, "x"))],
     "CN=x,1.3.6.1.4.1.311.60.2.1.3=DE", "x"),
    ([part((ObjectIdentifier("2.999.3"), "ä")), part((CN, "x"))], "CN=x,2.999.3=\\C3\\A4", "x"),
    ([part((CN, ""))], "CN=", ""),
    ([], "", None),
]


@pytest.mark.parametrize("whole", [True, False], ids=["distinguished_name", "common_name"])
def test_names(authority, whole):
    login_from("distinguished_name" if whole else "common_name")
    wrong = []
    for parts, *names in SUBJECTS:
        name = names[not whole]
        with Heard() as heard:
            got = heard.refused(authority.certify(parts))
        if got != expected(name):
            wrong.append((parts, name, got))
    assert not wrong


OTHERS = [
    x509.DNSName("one.example"), x509.RFC822Name("ann@example.com"), x509.DNSName("two.example"),
    x509.IPAddress(ipaddress.ip_address("192.0.2.1")), x509.IPAddress(ipaddress.ip_address("2001:db8::1:2")),
    x509.UniformResourceIdentifier("spiffe://example/ann?q=a%20b#x"), x509.UniformResourceIdentifier("urn:uuid:1"),
    x509.DirectoryName(x509.Name([part((CN, "dir"))])), x509.RegisteredID(ObjectIdentifier("1.2.3")),
    x509.OtherName(ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x03upn"),
]


@pytest.mark.parametrize("kind, names", [
    ("dns", ["one.example", "two.example", None]),
    ("email", ["ann@example.com", None]),
    ("uri", ["spiffe://example/ann?q=a%20b#x", "urn:uuid:1", None]),
], ids=["dns", "email", "uri"])
def test_alternative_names(authority, kind, names):
    certificate = authority.certify([part((CN, "ann"))], OTHERS)
    for index, name in enumerate(names):
        login_from("subject_alternative_name", kind, index)
        with Heard() as heard:
            assert heard.refused(certificate) == expected(name)
            if name is None:
                # Without any other names it is the same.
                assert heard.refused(authority.certify([part((CN, "ann"))])) == expected(name)


def test_addresses(authority):
    """RabbitMQ takes the octets of an address for a name, which no user can have; here it is written as addresses are."""
    certificate = authority.certify([part((CN, "ann"))], OTHERS)
    for index, name in enumerate(["192.0.2.1", "2001:db8::1:2"]):
        login_from("subject_alternative_name", "ip", index)
        with Heard() as heard:
            user, error = heard.refused(certificate)
            if IS_WARREN:
                assert (user, error) == expected(name)
            else:
                assert error.encode("latin1") == b"user '%s' - invalid credentials" % ipaddress.ip_address(name).packed


def test_no_certificate():
    """EXTERNAL is offered to those who show none, for the log to tell them why they are refused."""
    with Heard() as heard:
        assert heard.refused() == (None, "connection peer presented no TLS (x.509) certificate")


def test_no_tls():
    """Where TLS is not spoken, EXTERNAL is not offered."""
    url = pika.URLParameters(os.environ["WARREN_TEST_AMQP_URL"])
    external = pika.credentials.ExternalCredentials()
    with pytest.raises(pika.exceptions.AuthenticationError, match="EXTERNAL"):
        pika.BlockingConnection(pika.ConnectionParameters(url.host, url.port, credentials=external))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_users(authority, version):
    """Who is known does what he may, in both versions of TLS, and needs no password."""
    login_from("distinguished_name")
    parts = [part((O, "Größe, Inc.")), part((CN, f"ann {version.name}"))]
    name = f"CN=ann {version.name},O=Gr\\C3\\B6\\C3\\9Fe\\, Inc."
    manage("add_user", name, "unused")
    manage("clear_password", name)
    file = authority.certify(parts)
    versions = dict(minimum_version=version, maximum_version=version)
    with pytest.raises(pika.exceptions.ProbableAccessDeniedError) as refused:
        connect(file, **versions)
    text = f"NOT_ALLOWED - access to vhost '/' refused for user '{name}'"
    assert f"(530) {text!r}" in refused.value.args[0]
    manage("set_permissions", name, "^$", "^mine$", "^mine$")
    connection = connect(file, **versions)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
        connection.channel().queue_declare("theirs")
    assert refused.value.args == (403, f"ACCESS_REFUSED - access to queue 'theirs' in vhost '/' refused for user '{name}'")
    connection.close()
    # Whoever has a certificate may as well log in with a name and a password.
    connect(file, pika.PlainCredentials("guest", "guest"), **versions).close()
    manage("delete_user", name)


@pytest.mark.parametrize("known, ended, alert", [(False, False, "unknown ca"), (True, True, "certificate expired")], ids=["unknown", "ended"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_bad_certificates(tmp_path, version, known, ended, alert):
    """TLS refuses them, in its own words."""
    file = Authority(tmp_path, known).certify([part((CN, "guest"))], ended=ended)
    url = pika.URLParameters(os.environ["WARREN_TEST_AMQPS_URL"])
    made = context(file, minimum_version=version, maximum_version=version)
    with pytest.raises(ssl.SSLError, match=alert):
        with made.wrap_socket(socket.create_connection((url.host, url.port)), server_hostname="localhost") as stream:
            # Since TLS 1.3 the client hears of it after its handshake.
            stream.recv(1)

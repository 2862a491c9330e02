import ast
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.config import Settings, is_loopback, read_runtime, write_runtime
from monitor.core.errors import InvalidInput

CANARY = "canary-Zx81-password"
STORES = {"DATABASE_URL": "postgresql://a:b@db/feeler", "REDIS_URL": "redis://cache:6379/0"}
TOKEN = "0123456789abcdef"
ROOT = Path(__file__).parents[1]

# Elsewhere a variable is read only if it is no setting: one that a person names on the command line
# (env:NAME), and who that person was before sudo, and where from.
READ_ELSEWHERE = {"monitor/terminal/arguments.py": 1, "monitor/terminal/audit.py": 2}


def settings(home: Path, **environ: str) -> Settings:
    return Settings.from_env({"FEELER_HOME": str(home)} | STORES | environ)


def test_defaults_are_a_loopback_door_and_one_redis(tmp_path):
    read = settings(tmp_path)
    assert (read.host, read.port, read.url) == ("127.0.0.1", 8000, "http://127.0.0.1:8000")
    assert read.cache_url == read.redis_url == STORES["REDIS_URL"]
    assert (read.zone, read.capacity, read.ca_dir, read.lease) == ("", 10_000, tmp_path / "ca", 8.0)
    assert (read.history_days, read.log_level, read.procfile) == (400, "INFO", None)
    assert (read.secret_keys, read.secret_keys_file) == ("", None)
    assert not read.require_read_token


def test_every_value_can_be_set(tmp_path):
    read = settings(
        tmp_path,
        CACHE_URL="rediss://other/1",
        FEELER_TOKEN=TOKEN,
        FEELER_HOST="0.0.0.0",
        FEELER_CA_DIR="/etc/ca",
        FEELER_ZONE="eu-1",
        FEELER_CAPACITY="5",
        FEELER_HISTORY_DAYS="0",
        FEELER_URL="https://feeler.example/",
        FEELER_LOG="debug",
        FEELER_PROCFILE="/etc/Procfile",
        FEELER_SECRET_KEYS=" one,two ",
        FEELER_SECRET_KEYS_FILE="/run/keys",
        PORT="99",
    )
    assert (read.cache_url, read.token, read.host) == ("rediss://other/1", TOKEN, "0.0.0.0")
    assert read.port == 99
    assert (read.zone, read.capacity, read.ca_dir) == ("eu-1", 5, Path("/etc/ca"))
    assert read.history_days == 0
    assert (read.log_level, read.procfile) == ("DEBUG", Path("/etc/Procfile"))
    assert (read.secret_keys, read.secret_keys_file) == ("one,two", Path("/run/keys"))
    assert read.url == "https://feeler.example"
    assert read.require_read_token


@pytest.mark.parametrize(
    ("environ", "host"),
    [
        ({"PORT": "5000"}, "127.0.0.1"),
        ({"FEELER_TOKEN": TOKEN}, "127.0.0.1"),
        ({"PORT": "5000", "FEELER_TOKEN": TOKEN}, "0.0.0.0"),
        ({"PORT": "5000", "FEELER_TOKEN": TOKEN, "FEELER_HOST": "127.0.0.1"}, "127.0.0.1"),
    ],
)
def test_only_a_port_and_a_token_together_open_the_door_to_the_world(tmp_path, environ, host):
    assert settings(tmp_path, **environ).host == host


def test_an_open_door_without_a_token_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="FEELER_TOKEN"):
        settings(tmp_path, FEELER_HOST="0.0.0.0")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", f"mysql://u:{CANARY}@h/d"),
        ("DATABASE_URL", f"postgresql://u:{CANARY}@h:port/d"),
        ("DATABASE_URL", f"postgresql://u:{CANARY} @h/d"),
        ("REDIS_URL", f"postgresql://u:{CANARY}@h/d"),
        ("REDIS_URL", f"redis://:{CANARY}@[h/0"),
        ("CACHE_URL", CANARY),
        ("FEELER_URL", f"ftp://{CANARY}@h"),
        ("FEELER_TOKEN", f"{CANARY} with blanks"),
        ("FEELER_TOKEN", "short-token"),
        ("FEELER_ZONE", f"Zone {CANARY}"),
        ("FEELER_HOST", f"{CANARY}/24"),
        ("FEELER_LOG", CANARY),
        ("FEELER_CAPACITY", "0"),
        ("FEELER_CAPACITY", "1e3"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "٣"),
    ],
)
def test_nonsense_names_the_variable_and_never_its_value(tmp_path, name, value):
    with pytest.raises(InvalidInput) as caught:
        settings(tmp_path, **{name: value})
    assert caught.value.field == name
    assert caught.value.fix
    assert CANARY not in repr(caught.value) + str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL"])
def test_a_missing_store_says_what_to_do_and_clients_need_none(tmp_path, name):
    environ = {"FEELER_HOME": str(tmp_path)} | STORES | {name: " "}
    with pytest.raises(InvalidInput, match=f"{name}: not set .*feeler up"):
        Settings.from_env(environ)
    assert Settings.from_env(environ, stores=False).home == tmp_path


@pytest.mark.parametrize(
    ("name", "value", "attribute"),
    [
        ("DATABASE_URL", "postgres://x:y@z/w", "database_url"),
        ("REDIS_URL", "unix:///run/redis.sock", "redis_url"),
        ("CACHE_URL", "redis://c", "cache_url"),
        ("FEELER_TOKEN", TOKEN, "token"),
        ("FEELER_ZONE", "z1", "zone"),
        ("FEELER_HOST", "localhost", "host"),
        ("FEELER_URL", "http://h:1", "url"),
    ],
)
def test_every_variable_has_a_file_twin(tmp_path, name, value, attribute):
    secret = tmp_path / "secret"
    secret.write_text(value + "\n")
    assert (
        getattr(settings(tmp_path, **{name: "", f"{name}_FILE": str(secret)}), attribute) == value
    )
    with pytest.raises(InvalidInput, match=f"{name}_FILE"):
        settings(tmp_path, **{name: value, f"{name}_FILE": str(secret)})
    with pytest.raises(InvalidInput, match=f"{name}_FILE"):
        settings(tmp_path, **{name: "", f"{name}_FILE": str(tmp_path / "absent")})


def test_numbers_and_the_home_have_twins_too(tmp_path):
    for name, value in (("PORT", "7"), ("FEELER_CAPACITY", "8"), ("FEELER_HOME", str(tmp_path))):
        (tmp_path / name).write_text(value)
    twins = {
        f"{name}_FILE": str(tmp_path / name) for name in ("PORT", "FEELER_CAPACITY", "FEELER_HOME")
    }
    read = Settings.from_env(STORES | twins)
    assert (read.port, read.capacity, read.home) == (7, 8, tmp_path)


def test_home_follows_xdg():
    assert Settings.from_env(STORES | {"XDG_DATA_HOME": "/data"}).home == Path("/data/feeler")
    assert Settings.from_env(STORES | {"HOME": "/h", "XDG_DATA_HOME": "rel"}).home == Path(
        "/h/.local/share/feeler"
    )


def test_a_running_up_is_found_through_its_runtime_file(tmp_path):
    left = STORES | {
        "FEELER_TOKEN": TOKEN,
        "FEELER_URL": "http://127.0.0.1:1234",
        "LD_PRELOAD": "x",
    }
    write_runtime(tmp_path, left)
    assert (tmp_path / "runtime.env").stat().st_mode & 0o777 == 0o600
    read = Settings.from_env({"FEELER_HOME": str(tmp_path)})
    assert (read.database_url, read.redis_url) == (STORES["DATABASE_URL"], STORES["REDIS_URL"])
    assert (read.token, read.url) == (TOKEN, "http://127.0.0.1:1234")
    assert [path.name for path in tmp_path.iterdir()] == ["runtime.env"]


def test_the_runtime_file_never_mixes_with_another_fleet(tmp_path):
    write_runtime(
        tmp_path,
        STORES | {"CACHE_URL": "redis://old", "FEELER_TOKEN": TOKEN, "FEELER_URL": "http://old"},
    )
    home = {"FEELER_HOME": str(tmp_path)}
    elsewhere = Settings.from_env(home | {"FEELER_URL": "https://elsewhere"}, stores=False)
    assert elsewhere.token == ""  # a token goes only where it came from
    process = Settings.from_env(home | STORES)
    assert (process.cache_url, process.token) == (STORES["REDIS_URL"], "")
    with pytest.raises(InvalidInput, match="REDIS_URL"):
        Settings.from_env(home | {"DATABASE_URL": "postgres://other/db"})


def test_a_runtime_file_others_can_read_is_refused(tmp_path):
    write_runtime(tmp_path, STORES)
    os.chmod(tmp_path / "runtime.env", 0o644)
    with pytest.raises(InvalidInput, match="chmod 600"):
        read_runtime(tmp_path)


def test_repr_shows_no_secret(tmp_path):
    told = {"REDIS_URL": f"redis://:{CANARY}@h", "FEELER_TOKEN": CANARY}
    shown = repr(settings(tmp_path, **told, FEELER_SECRET_KEYS=CANARY))
    assert CANARY not in shown


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("localhost.example", False),
     ("", False)],
)  # fmt: skip
def test_loopback(host, loopback):
    assert is_loopback(host) is loopback


@given(
    st.dictionaries(
        st.sampled_from(sorted([*STORES, "PORT", "FEELER_TOKEN", "FEELER_ZONE"])), st.text()
    )
)
def test_any_environment_is_read_or_refused_politely(environ):
    try:
        read = Settings.from_env({"FEELER_HOME": "/nowhere/at/all"} | environ)
    except InvalidInput as error:
        assert error.field in environ or error.field in STORES  # noqa: PT017
    else:
        assert read.redis_url.isprintable()
        assert read.database_url.isprintable()


@pytest.mark.parametrize(
    ("environ", "host"),
    [
        ({"PORT": "5000", "FEELER_TOKEN": TOKEN}, "127.0.0.1"),
        ({"FEELER_HOST": "0.0.0.0"}, "0.0.0.0"),
        ({"FEELER_HOME": "/elsewhere", "FEELER_HOME_FILE": "/nowhere"}, "127.0.0.1"),
    ],
)
def test_up_keeps_to_its_home_and_to_loopback_unless_a_host_is_named(tmp_path, environ, host):
    read = Settings.for_up(environ, tmp_path)
    assert (read.home, read.host) == (tmp_path, host)


def reads(path: Path) -> int:
    """Count where a module reads a single variable, and not hands the environment on."""
    found = 0
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("getenv"):
            found += 1
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            found += ast.unparse(node.value).endswith("environ")
        if isinstance(node, ast.Attribute) and node.attr == "get":
            found += ast.unparse(node.value).endswith("environ")
    return found


def test_every_variable_is_read_in_settings():
    modules = [path for folder in ("monitor", "workers") for path in (ROOT / folder).rglob("*.py")]
    modules.append(ROOT / "alembic" / "env.py")
    found = {str(path.relative_to(ROOT)): reads(path) for path in modules}
    assert found.pop("monitor/config.py") > 5
    assert {name: count for name, count in found.items() if count} == READ_ELSEWHERE

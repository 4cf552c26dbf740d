"""Write a plugin of deputy in Python: this one file, on what Debian packages.

    import deputy_plugin as deputy

    @dataclass
    class Settings:
        file: Path = deputy.setting("the file that is there on the primary")

    class Marker:
        def __init__(self, settings, host): ...
        def promote(self, act): ...
        def demote(self, act): ...
        def check(self, role): ...

    if __name__ == "__main__":
        deputy.main("marker", Marker, Settings, doc=__doc__)

README.md beside it is the guide. What it guarantees to an author is what
package sdk guarantees to one in Go:

- Settings are right when the class gets them, as their dataclass says; every
  mistake in them is told, by its key.
- One act runs at a time. A demotion ends everything that was asked before, waits
  until it has ended, and begins then. The same act asked twice at once runs once.
- A promote, follow or fence of a term older than one ever seen by the process does
  not reach the author's code. A demote always does.
- Heartbeats go out while an act runs, whatever it does. An exception is the
  failure of the call that raised it. What is printed goes to deputy's log.
- When the supervisor is gone, acts have half a second to end; after a second the
  process is gone, with its socket. SIGTERM, SIGINT and SIGHUP do not end it.

What it does not guarantee: that an act ends when it is told to. Nothing can end a
thread of Python: sleep and run of this module do end then, and raise_if_ended
asks. What blocks otherwise is killed with the process, by deputy.

It needs Python 3.11, and to be served python3-grpcio and python3-protobuf, as in
Debian 12 and 13.
"""

import argparse
import base64
import collections
import concurrent.futures
import contextlib
import copy
import dataclasses
import difflib
import enum
import faulthandler
import glob
import ipaddress
import json
import logging
import math
import os
import pathlib
import queue
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
import typing
from datetime import datetime, timedelta, timezone

KIT = "deputy_plugin.py 1"  # what describe names as its SDK

__all__ = [
    "Already", "Ended", "Expired", "Health", "Host", "Mistake", "Peer", "Refuse", "Retry", "Stale", "Transition", "Unchanged",
    "left", "main", "note", "now", "progress", "raise_if_ended", "run", "setting", "sleep",
]


# What an author's code gets and raises.


class Outcome(Exception):
    """An act's outcome, raised with what was seen. Whatever else is raised is unknown: it may be primary."""


class Already(Outcome):
    """Nothing had to be done. A supervisor that comes back keeps the role only then."""


class Unchanged(Outcome):
    """The act failed, and what was before still is, as seen by looking. It is worth another try."""


class Retry(Unchanged):
    """Unchanged, and not to be tried again before `after` seconds."""

    def __init__(self, text, after):
        super().__init__(text)
        self.after = after


class Refuse(Unchanged):
    """Unchanged, and trying again is of no use: somebody has to change something first."""


class Stale(Outcome):
    """What the plugin works on has seen a newer term, so that nothing was changed."""


class Expired(Exception):
    """What renew extends has expired: the part does not act as primary any more."""


class Ended(Exception):
    """The call is to end: its time is over, a demotion was asked for, or nobody waits any more."""


class Mistake(Exception):
    """What is wrong with one setting, by its dotted key, or with several: then the key is empty."""

    def __init__(self, key, text):
        super().__init__(f"{key}: {text}" if key else text)
        self.key, self.text = key, text


@dataclasses.dataclass(frozen=True)
class Peer:
    """A node as others reach it."""

    node: str = ""
    address: str = ""


@dataclasses.dataclass(frozen=True)
class Transition:
    """One act asked of a plugin. The same may be asked again; it then has the same id and a higher attempt."""

    action: str  # promote, demote, follow or fence
    service: str
    node: str
    term: int  # the fencing token; of a demote the last term known, zero if none
    id: str = ""
    mode: str = "planned"  # or forced: stop acting as primary by any means before the time is over
    reason: str = ""  # one word: election, failover, switchover, …
    cause: str = ""  # a sentence for people
    attempt: int = 1
    timeout: float = 0.0  # seconds from its start; zero is not said
    lease_until: float = 0.0  # as now() tells it; zero when none is held
    previous: Peer = Peer()  # who was primary before
    primary: Peer = Peer()  # who is primary, or will be; of a fence the victim
    members: tuple = ()
    state_dir: str = ""

    @property
    def forced(self):
        return self.mode == "forced"


@dataclasses.dataclass(frozen=True)
class Health:
    """The answer to a check: fit for the role, or not."""

    fit: bool
    detail: str = ""
    position: str = ""  # opaque; only the plugin's own rank compares it
    certain: bool = False  # not fit, and no matter of one answer: it counts at once


@dataclasses.dataclass(frozen=True)
class Host:
    """Where a plugin runs."""

    service: str
    node: str
    part: str  # the part's name, unique in the service
    state_dir: str  # for what the plugin wants to keep; may not exist
    log: logging.Logger  # to the supervisor's log; fields by extra={…}


def setting(doc, *, default=dataclasses.MISSING, min=None, max=None, secret=False):
    """A field of the dataclass of settings. Without a default it is required, and not to be empty."""
    about = {"doc": doc, "min": min, "max": max, "secret": secret}
    if type(default).__hash__ is None:  # it can be changed: each has its own
        return dataclasses.field(default_factory=lambda: copy.deepcopy(default), metadata=about)
    return dataclasses.field(default=default, metadata=about)


def now():
    """CLOCK_BOOTTIME in seconds: what lease_until and a renewal's until are told in."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def left():
    """The seconds that the call of this thread has left; endless when it has no bound."""
    call = _current()
    return call.left() if call else math.inf


def raise_if_ended():
    """Raises Ended if the call of this thread is to end."""
    call = _current()
    if call and (cause := call.ended()):
        raise cause


def sleep(seconds):
    """Sleeps, and raises Ended as soon as the call of this thread is to end."""
    call = _current()
    if not call:
        return time.sleep(seconds)
    call.wait(seconds)
    raise_if_ended()


def note(text):
    """Keeps what the act has seen, to be shown with its outcome; the last one counts."""
    if call := _current():
        call.noted = text


def progress(percent, text):
    """Tells operators how far the act has come; less than zero when that is not known."""
    if call := _current():
        call.progress(percent, text)


def run(*args, timeout=None, input=None, env=None):
    """Runs a program and returns what it printed.

    It ends, with all of its process group, when its time is over or that of the
    call, or the call is to end: by SIGTERM, and a second later by SIGKILL. Then, and
    when its exit code is not 0, this raises an error. That cancels nothing which it
    has had others do: look before you report. What it prints to its standard error
    goes to the log. A daemon that it starts does not block, and keeps nothing open
    that is the plugin's.
    """
    raise_if_ended()
    call, log = _current(), logging.getLogger("deputy")
    args = [os.fspath(a) for a in args]
    stdin = subprocess.DEVNULL
    if input is not None:
        stdin = tempfile.TemporaryFile()
        stdin.write(input.encode() if isinstance(input, str) else input)
        stdin.seek(0)
    process = subprocess.Popen(
        args, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, process_group=0, errors="replace",
    )
    out, said = [], collections.deque(maxlen=3)

    def complain(line):
        if line := line.strip()[:1024]:
            said.append(line)
            log.info("command says", extra={"command": args[0], "text": line})

    # What keeps an output open keeps its reader, too, and nobody waits for it.
    readers = [_thread(_read, process.stdout, out.append), _thread(_read, process.stderr, complain)]
    with os.fdopen(os.pidfd_open(process.pid)) as exits, contextlib.ExitStack() as stack:
        wake, guard = os.fdopen(os.eventfd(0)), threading.Lock()

        def rouse():  # which may come late, when the number is another file's
            with guard:
                if not wake.closed:
                    os.eventfd_write(wake.fileno(), 1)

        def close():
            with guard:
                wake.close()

        stack.callback(close)
        if call:
            stack.enter_context(call.telling(rouse))
        bound = min(left(), math.inf if timeout is None else timeout)
        both = select.poll()
        both.register(exits, select.POLLIN)
        both.register(wake, select.POLLIN)
        both.poll(None if bound == math.inf else max(0, bound) * 1000)
        cut = not select.select([exits], [], [], 0)[0]  # while it is not reaped, its group is nobody else's
        if cut:
            _end_group(process)
    process.wait()
    for reader in readers:
        reader.join(0.1)
    said = list(said) or [line.strip() for line in out[-3:]]
    what = f"run {args[0]}"
    if cut:
        raise_if_ended()
        raise TimeoutError(": ".join([what, f"not done within {_show(bound)}", *said[-1:]]))
    if process.returncode:
        how = f"exit code {process.returncode}"
        if process.returncode < 0:
            how = f"ended by {signal.Signals(-process.returncode).name}"
        raise ChildProcessError(": ".join([what, how, *filter(None, ["; ".join(said)])]))
    return "".join(out)


def main(name, plugin, settings=None, *, doc="", version="", forced_bound=None):
    """Serves a plugin to the supervisor that started this program, and never returns. By hand it answers questions.

    Of the class `plugin` an object is made for each set of settings, with them and a
    Host; that changes nothing in the world, and raises a Mistake for what is wrong
    with them. What it is called for is what methods the class has:

        promote(act), demote(act), follow(act), fence(victim, act)
        check(role) -> Health
        renew(until): extends what expires by itself, never beyond until, or raises Expired
        watch(changed, stop): calls changed() when check may have another answer, until the event stop is set
        rank(mine, others) -> {node: "ahead", "equal" or "behind"}
        close(): the settings are not in force any more

    `settings` is a dataclass whose fields are made by setting(). `forced_bound`
    promises the seconds in which a forced demotion that is given them is done.
    """
    p = _Plugin(name, plugin, settings, (doc or "").strip(), version, forced_bound or 0)
    if os.environ.get(_COOKIE) == _COOKIE_VALUE:
        status = 1
        try:
            status = _hosted(p)
        except Exception:
            traceback.print_exc()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)  # whatever still runs
    sys.exit(_ByHand(p).run(sys.argv[1:]))


# Calls.

_here = threading.local()


def _current():
    return getattr(_here, "call", None)


class _Call:
    """One call of the author's code: how long it may last, and why it is to end."""

    def __init__(self, seconds=math.inf):
        self.seconds, self.until = seconds, time.monotonic() + seconds
        self.noted = ""
        self.progress = lambda percent, text: None
        self._cause = None
        self._changed = threading.Condition()
        self._told = []

    def end(self, cause):
        with self._changed:
            if self._cause is None:
                self._cause = cause
            self._changed.notify_all()
            told = list(self._told)
        for tell in told:
            tell()

    def ended(self):
        if self._cause is None and self.left() <= 0:
            self._cause = Ended(f"not done within {_show(self.seconds)}")
        return self._cause

    def left(self):
        return max(0.0, self.until - time.monotonic())

    def wait(self, seconds):
        with self._changed:
            self._changed.wait_for(lambda: self._cause is not None, min(seconds, self.left()))

    @contextlib.contextmanager
    def telling(self, tell):
        """Has tell called when the call is to end, also when it already is."""
        with self._changed:
            self._told.append(tell)
            over = self._cause is not None
        if over:
            tell()
        try:
            yield
        finally:
            with self._changed:
                self._told.remove(tell)

    @contextlib.contextmanager
    def here(self):
        """Makes it the call of this thread."""
        before, _here.call = _current(), self
        try:
            yield
        finally:
            _here.call = before


@dataclasses.dataclass
class _Result:
    outcome: str
    detail: str = ""
    refused: bool = False
    retry_after: float = 0.0


def _judge(error):
    """What an exception says of an act. Of a group the worst counts."""
    if isinstance(error, BaseExceptionGroup):
        all = [_judge(e) for e in error.exceptions]
        for worst in "failed-unknown", "stale-term", "failed-unchanged", "already":
            if found := [r for r in all if r.outcome == worst]:
                detail = "; ".join(r.detail for r in all if r.detail)
                return _Result(worst, detail, any(r.refused for r in found), max(r.retry_after for r in found))
    text = str(error)
    if isinstance(error, Already):
        return _Result("already", text)
    if isinstance(error, Stale):
        return _Result("stale-term", text)
    if isinstance(error, Unchanged):
        return _Result("failed-unchanged", text, isinstance(error, Refuse), getattr(error, "after", 0.0))
    return _Result("failed-unknown", text if isinstance(error, Ended) else _tell(error))


class _Act:
    """One transition while it waits or runs."""

    def __init__(self, transition, call):
        self.t, self.call, self.result = transition, call, None

    def same(self, other):
        a, b = self.t, other.t
        return a.id != "" and (a.id, a.action, a.attempt) == (b.id, b.action, b.attempt)


class _Part:
    """What the author's class has made of one set of settings."""

    def __init__(self, made, given):
        self.made, self.given = made, given
        self.calls = 0  # that it is in
        self.retired = False
        self.watched = []  # told when it is retired


class _Server:
    """Calls a plugin one act at a time, whoever asks."""

    def __init__(self, plugin):
        self.plugin = plugin
        self.log = logging.getLogger("deputy")
        self.configuring = threading.Lock()
        self.changed = threading.Condition()  # over all that follows
        self.part = None  # before the first settings
        self.highest = 0  # term ever seen
        self.asked = []  # acts that run or wait
        self.running = None
        self.drained = False

    def see(self, term):
        with self.changed:
            self.highest = max(self.highest, term)

    def configure(self, given, term, validate_only, seconds):
        """Puts settings in force, or returns the mistakes in them. given is (service, node, part, state_dir, config)."""
        with self.configuring:
            if not validate_only:
                self.see(term)
                if self.part and self.part.given == given:
                    return []
            call = _Call(seconds)
            try:
                with call.here():
                    settings = self.plugin.settings.decode(given[4])
                    if validate_only:
                        return []
                    part = _Part(self.plugin.make(settings, Host(*given[:4], self.log)), given)
            except BaseException as error:
                return [self._mistake(e) for e in _apart(error)]
            with self.changed, call.telling(self._wake):
                while not self.drained and self.running and not call.ended():
                    self.changed.wait(_finite(call.left()))
                why = "the plugin is told to end" if self.drained else "another act still runs" if self.running else ""
                if not why:
                    old, self.part = self.part, part
            self.retire(part if why else old, call)
            if why:
                raise RuntimeError(f"configure: {why}")
            return []

    def _mistake(self, error):
        if not isinstance(error, Mistake):
            self._trace("configure", error)
            error = Mistake("", _tell(error))
        return error

    def _wake(self):
        with self.changed:
            self.changed.notify_all()

    def retire(self, part, call):
        """Ends a part that is not called any more, once the last call of it is over or the time to wait for that."""
        if part is None:
            return
        with self.changed:
            part.retired = True
            watched = list(part.watched)
        for tell in watched:
            tell()
        with self.changed:
            self.changed.wait_for(lambda: part.calls == 0, _finite(call.left()))
        if hasattr(part.made, "close"):
            try:
                part.made.close()
            except Exception as error:
                self._trace("close", error)

    def ask(self, transition, call):
        """Takes note of an act that is asked for; act has to follow."""
        a = _Act(transition, call)
        with self.changed:
            self.highest = max(self.highest, transition.term)
            if transition.action == "demote":  # nothing that was asked before may run once it is over
                for other in self.asked:
                    if not other.same(a):
                        other.call.end(Ended("a demotion was asked for"))
            self.asked.append(a)
        return a

    def act(self, a):
        """Does an act, once nothing else runs."""
        with a.call.telling(self._wake):
            part, result = self._enter(a)
        if part:
            result = self._attempt(part.made, a)
        with self.changed:
            self.asked.remove(a)
            if self.running is a:
                self.running = None
            a.result = result
            self.changed.notify_all()
        return result

    def _enter(self, a):
        """Makes it the act that runs, and returns what it calls; else its result, which may be that of the very same act."""
        waited = False
        with self.changed:
            while True:
                running = self.running
                if a.t.action != "demote" and a.t.term < self.highest:
                    return None, _Result("stale-term", f"term {a.t.term}: term {self.highest} was seen")
                if cause := a.call.ended():
                    return None, self._not_begun(a, cause, running, waited)
                if self.drained:
                    return None, self._not_begun(a, "the plugin is told to end", running, waited)
                if self.part is None:
                    return None, self._not_begun(a, "not configured yet", running, waited)
                if running is None:
                    self.running = a
                    return self.part, None
                self.changed.wait(_finite(a.call.left()))
                waited = True
                if running is not self.running and running.same(a):
                    return None, running.result

    @staticmethod
    def _not_begun(a, why, running, waited):
        """It has changed nothing itself. What runs, or has run while it waited, may have."""
        if running:
            why = f"another {running.t.action} still runs: {why}"
        outcome = "failed-unknown" if running or waited else "failed-unchanged"
        return _Result(outcome, f"{a.t.action}: not begun: {why}")

    def _attempt(self, made, a):
        t = a.t
        try:
            with a.call.here():
                if t.action != "fence":
                    getattr(made, t.action)(t)
                elif t.primary.node in ("", t.node):
                    raise Refuse(f"fence {t.primary.node!r}: that is not another node")
                else:
                    made.fence(t.primary, t)
        except BaseException as error:
            result = _judge(error)
            if result.outcome == "failed-unknown" and not isinstance(error, Ended):
                self._trace(t.action, error)
            if result.outcome == "already" and not result.detail:
                result.detail = a.call.noted
            return result
        return _Result("done", a.call.noted)

    def call(self, capability, seconds, do):
        """Makes one call of what is in force that is no act: do(made, part)."""
        with self.changed:
            part = self.part
            if part is None:
                raise RuntimeError("not configured yet")
            part.calls += 1
        try:
            with _Call(seconds).here():
                return do(part.made, part)
        except (Expired, Ended):
            raise
        except Exception as error:
            self._trace(capability, error)
            raise
        finally:
            with self.changed:
                part.calls -= 1
                self.changed.notify_all()

    def check(self, role, term, seconds):
        self.see(term)
        health = self.call("check", seconds, lambda made, part: made.check(role))
        if not isinstance(health, Health):
            raise TypeError(f"check returned {health!r}, which is no Health")
        return health

    def drain(self, seconds):
        """Ends what runs and lets nothing more begin; whether it is over in that time."""
        call = _Call(seconds)
        with self.changed:
            self.drained = True
            if self.running:
                self.running.call.end(Ended("the plugin is told to end"))
            self.changed.notify_all()
            if not self.changed.wait_for(lambda: self.running is None, _finite(seconds)):
                return False
            part, self.part = self.part, None
        self.retire(part, call)
        return True

    def _trace(self, what, error):
        self.log.error("plugin raises", extra={"in": what, "cause": _tell(error), "stack": "".join(traceback.format_exception(error)).strip()})


class _Plugin:
    """What main serves."""

    CAPABILITIES = ("promote", "demote", "renew", "check", "watch", "rank", "follow", "fence")

    def __init__(self, name, make, settings, doc, version, forced_bound):
        self.name, self.make, self.doc, self.version, self.forced_bound = name, make, doc, version, forced_bound
        self.capabilities = [c for c in self.CAPABILITIES if callable(getattr(make, c, None))]
        if not self.capabilities:
            raise TypeError(f"plugin {name}: {make.__name__} has none of the methods that a plugin is called for")
        for one, needs in ("promote", "demote"), ("watch", "check"):
            if one in self.capabilities and needs not in self.capabilities:
                raise TypeError(f"plugin {name}: {make.__name__} can {one} but not {needs}")
        self.settings = _Settings(settings)


# Settings: what one may write, what it is for, and what is wrong with what was written.

_ADDRESS = {ipaddress.IPv4Address, ipaddress.IPv6Address}
_INTERFACE = {ipaddress.IPv4Interface, ipaddress.IPv6Interface}
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_DURATION = r"^[-+]?(0|([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))*)$"


class _Shape:
    """What values of a type look like."""

    def __init__(self, of, above=()):
        self.option, self.elem, self.fields, self.enum = False, None, [], None
        origin, args = typing.get_origin(of), typing.get_args(of)
        if origin in (typing.Union, types.UnionType):
            some = [a for a in args if a is not type(None)]
            self.option = len(some) < len(args)
            if len(some) == 1:
                of, origin, args = some[0], typing.get_origin(some[0]), typing.get_args(some[0])
        self.of = of
        ip = set(some) if origin in (typing.Union, types.UnionType) else {of}
        if origin is typing.Literal and all(isinstance(a, str) for a in args):
            self.kind, self.enum = "text", list(args)
        elif origin is list:
            self.kind, self.elem = "list", _Shape(*args, above)
        elif origin is dict and args[0] is str:
            self.kind, self.elem = "dictionary", _Shape(args[1], above)
        elif ip <= _ADDRESS:
            self.kind, self.noun, self.of = "parsed", ("an IP address", "IP addresses", "192.0.2.10", "ip"), ip
        elif ip <= _INTERFACE:
            self.kind, self.of = "parsed", ip
            self.noun = ("an IP address with its prefix length", "IP addresses with their prefix lengths", "192.0.2.10/24", "ip-prefix")
        elif not isinstance(of, type):
            raise TypeError(f"a setting cannot be a {of}")
        elif dataclasses.is_dataclass(of):
            if of in above:
                raise TypeError(f"{of.__name__} is part of itself")
            self.kind, self.fields = "table", _fields(of, (*above, of))
        elif issubclass(of, enum.Enum) and all(isinstance(m.value, str) for m in of):
            self.kind, self.enum = "text", [m.value for m in of]
        elif kind := {bool: "boolean", int: "whole", float: "number", str: "text", timedelta: "duration"}.get(of):
            self.kind = kind
        elif issubclass(of, pathlib.PurePath):
            self.kind = "text"
        else:
            raise TypeError(f"a setting cannot be a {of.__name__}")

    def scalar(self):
        return self.elem.scalar() if self.elem else self

    def make(self, text):
        """A text as its type has it; ValueError if that cannot be."""
        if self.kind == "duration":
            if not re.match(_DURATION, text):
                raise ValueError(text)
            sign = -1 if text.startswith("-") else 1
            return timedelta(seconds=sign * sum(float(n) * _UNITS[u] for n, u in re.findall(r"([0-9.]+)([a-zµμ]+)", text)))
        if self.kind == "parsed":
            value = (ipaddress.ip_address if self.of <= _ADDRESS else ipaddress.ip_interface)(text)
            if type(value) not in self.of or self.of <= _INTERFACE and "/" not in text:
                raise ValueError(text)
            return value
        return text if typing.get_origin(self.of) else self.of(text)

    def unmake(self, value):
        """A value as it is written."""
        if isinstance(value, timedelta):
            return _show(value.total_seconds())
        if isinstance(value, enum.Enum):
            return value.value
        if isinstance(value, list):
            return [self.elem.unmake(v) for v in value]
        if isinstance(value, (bool, int, float)) or value is None:
            return value
        return str(value)

    def words(self):
        match self.kind:
            case "boolean":
                return "true or false"
            case "whole":
                return "whole number"
            case "parsed":
                return self.noun[0].split(" ", 1)[1]
            case "list":
                inner = {"table": "tables", "text": "texts", "duration": "durations", "parsed": self.elem.kind == "parsed" and self.elem.noun[1]}
                return f"array of {inner[self.elem.kind]}" if inner.get(self.elem.kind) else f"array, each {self.elem.words()}"
            case "dictionary":
                return f"table with any keys, each {self.elem.words()}"
        return self.kind

    def schema(self, field):
        j = {}
        match self.kind:
            case "boolean":
                j["type"] = "boolean"
            case "whole" | "number":
                j["type"] = "integer" if self.kind == "whole" else "number"
                j |= {k: v for k, v in (("minimum", field.min), ("maximum", field.max)) if v is not None}
            case "text":
                j["type"] = "string"
                if self.enum:
                    j["enum"] = self.enum
            case "duration":
                j |= {"type": "string", "pattern": _DURATION}
            case "parsed":
                j |= {"type": "string", "format": self.noun[3]}
            case "list":
                j |= {"type": "array", "items": self.elem.schema(field)}
            case "dictionary":
                j |= {"type": "object", "additionalProperties": self.elem.schema(field)}
            case "table":
                j |= {"type": "object", "properties": {f.key: f.schema() for f in self.fields}, "additionalProperties": False}
                if required := [f.key for f in self.fields if f.required]:
                    j["required"] = required
        return j

    def rows(self, path):
        for f in self.fields:
            key = _below(path, f.key)
            standard = "required" if f.required else "" if f.standard in (None, {}) else json.dumps(f.standard, ensure_ascii=False)
            yield key, f.words(), standard, f.doc
            shape = f.shape
            while shape.elem:
                key += "[]" if shape.kind == "list" else ".*"
                shape = shape.elem
            yield from shape.rows(key)


class _Field:
    """One setting of a table."""

    def __init__(self, field, of, above):
        self.key, self.shape = field.name, _Shape(of, above)
        if not field.metadata.get("doc"):
            raise TypeError(f"{field.name}: make it by setting(), with what it is for")
        self.doc, self.min, self.max, self.secret = (field.metadata[k] for k in ("doc", "min", "max", "secret"))
        if (self.min is not None or self.max is not None) and self.shape.scalar().kind not in ("whole", "number", "duration"):
            raise TypeError(f"{field.name}: min and max are for numbers and durations")
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        self.required = default is dataclasses.MISSING
        # What is left out of a table that is itself left out has the defaults of its own.
        self.standard = None if self.required else {} if self.shape.kind == "table" and default is not None else self.shape.unmake(default)

    def limits(self):
        least, most = (v if v is None else self.shape.scalar().unmake(v) for v in (self.min, self.max))
        if None not in (least, most):
            return f"{least} to {most}"
        return f"at least {least}" if least is not None else f"at most {most}" if most is not None else ""

    def words(self):
        words = self.shape.words()
        if choices := self.shape.scalar().enum:
            quoted = [_quote(c) for c in choices]
            words = " or ".join(filter(None, [", ".join(quoted[:-1]), quoted[-1]]))
            if self.shape.kind == "list":
                words = f"array of {words}"
        return ", ".join(filter(None, [words, self.limits(), "secret" if self.secret else ""]))

    def schema(self):
        j = self.shape.schema(self)
        j["description"] = self.doc
        if self.limits() and self.shape.scalar().kind == "duration":
            j["description"] += f" ({self.limits()})"
        if self.standard not in (None, {}):
            j["default"] = self.standard
        if self.secret:
            j["writeOnly"] = True
        if self.required:
            j |= {"text": {"minLength": 1}, "parsed": {"minLength": 1}, "duration": {"minLength": 1}, "list": {"minItems": 1}}.get(self.shape.kind, {})
        return j


def _fields(of, above):
    hints = typing.get_type_hints(of)
    try:
        return [_Field(f, hints[f.name], above) for f in dataclasses.fields(of) if f.init]
    except TypeError as error:
        raise TypeError(f"settings {of.__name__}: {error}") from None


class _Settings:
    """The settings of a plugin, as their dataclass describes them."""

    def __init__(self, of):
        if of is not None and not dataclasses.is_dataclass(of):
            raise TypeError(f"{of!r} is no dataclass of settings")
        self.of = of
        self.top = _Shape(of or dataclasses.make_dataclass("NoSettings", []))

    def schema(self):
        return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | self.top.schema(None)

    def rows(self):
        return list(self.top.rows(""))

    def decode(self, config):
        """The settings that a JSON object makes; every mistake in it is raised, as a group."""

        def refuse(constant):
            raise ValueError(f"{constant} is no number")

        try:
            given = json.loads(config or "{}", parse_constant=refuse)
        except ValueError as error:
            raise Mistake("", f"settings are not JSON: {error}") from None
        if not isinstance(given, dict):
            raise Mistake("", f"settings must be a JSON object, not {_kind(given)}")
        wrong = []
        value = self._table(self.top, "", given, wrong)
        if wrong:
            raise ExceptionGroup("settings", wrong)
        return value if self.of else None

    def _table(self, shape, path, given, wrong):
        before, values = len(wrong), {}
        for f in shape.fields:
            at = _below(path, f.key)
            if f.key in given:
                value = values[f.key] = self._read(f.shape, f, at, given[f.key], wrong)
                if f.required and value is not None and f.shape.kind in ("text", "list", "dictionary") and given[f.key] in ("", [], {}):
                    wrong.append(Mistake(at, f"is empty, and it is required: {f.doc}"))
            elif f.required and f.shape.kind == "table" and not f.shape.option:
                values[f.key] = self._table(f.shape, at, {}, wrong)  # what is required in it is missing
            elif f.required:
                wrong.append(Mistake(at, f"is missing, and it is required: {f.doc}"))
        known = [f.key for f in shape.fields]
        wrong += (Mistake(_below(path, _key(k)), f"unknown key; {_suggest(k, known)}") for k in sorted(set(given) - set(known)))
        if len(wrong) > before:
            return None
        try:
            return shape.of(**values)  # which may have a __post_init__ that judges the whole
        except Exception as error:
            for e in _apart(error):
                key, text = (e.key, e.text) if isinstance(e, Mistake) else ("", str(e) if isinstance(e, ValueError) else _tell(e))
                wrong.append(Mistake(_below(path, key), text))

    def _read(self, shape, f, path, given, wrong):
        """One value as its type has it; None when it is wrong."""
        before = len(wrong)
        shown = "what is given" if f.secret else _kind(given)

        def must(what):
            wrong.append(Mistake(path, f"must be {what}, not {shown}"))

        match shape.kind:
            case "boolean":
                return given if isinstance(given, bool) else must("true or false, without quotes")
            case "whole" if type(given) is float:
                return must("a whole number")
            case "whole" if type(given) is not int:
                return must("a whole number, without quotes")
            case "number" if type(given) not in (int, float):
                return must("a number, without quotes")
            case "whole" | "number":
                return self._bounds(shape, f, path, given if shape.kind == "whole" else float(given), wrong)
            case "text" if not isinstance(given, str):
                return must("a text in quotes")
            case "duration" if type(given) in (int, float):
                return must(f'a duration in quotes with its unit, like "{given}s" or "{given}ms"')
            case "duration" if not isinstance(given, str):
                return must('a duration in quotes with its unit, like "3s" or "500ms"')
            case "parsed" if not isinstance(given, str):
                return must(f"{shape.noun[0]} in quotes")
            case "list" if not isinstance(given, list):
                return must("an array of tables like [{ key = value }]" if shape.elem.kind == "table" else "an array like [one, two]")
            case "dictionary" | "table" if not isinstance(given, dict):
                return must("a table like { key = value }")
            case "list":
                all = [self._read(shape.elem, f, f"{path}[{i}]", one, wrong) for i, one in enumerate(given)]
                return all if len(wrong) == before else None
            case "dictionary":
                all = {k: self._read(shape.elem, f, _below(path, _key(k)), given[k], wrong) for k in sorted(given)}
                return all if len(wrong) == before else None
            case "table":
                return self._table(shape, path, given, wrong)
        shown = "what is given" if f.secret else _quote(given)
        if shape.enum and given not in shape.enum:
            wrong.append(Mistake(path, f"{shown} is not one of its values; {_suggest(given, shape.enum)}"))
            return None
        try:
            value = shape.make(given)
        except ValueError:
            if shape.kind == "duration":
                text = f'{shown} is not a duration; write a number and its unit (ms, s, m, h), like "500ms" or "1m30s"'
            else:
                text = f"{shown} is not {shape.noun[0]}, like {_quote(shape.noun[2])}"
            wrong.append(Mistake(path, text))
            return None
        return self._bounds(shape, f, path, value, wrong) if shape.kind == "duration" else value

    @staticmethod
    def _bounds(shape, f, path, value, wrong):
        for bound, off, words in (f.min, lambda: value < f.min, "at least"), (f.max, lambda: value > f.max, "at most"):
            if bound is not None and off():
                shown = "what it must not be" if f.secret else shape.unmake(value)
                wrong.append(Mistake(path, f"is {shown}, must be {words} {shape.unmake(bound)}"))
                return None
        return value


def _suggest(word, known):
    """Which of the known words was probably meant, else which there are."""
    if near := difflib.get_close_matches(word, known, 1, 0.7):
        return f'did you mean "{near[0]}"?'
    quoted = [_quote(k) for k in known]
    if len(quoted) < 2:
        return f"the only one is {quoted[0]}" if quoted else "there are none"
    return f"there are {', '.join(quoted[:-1])} and {quoted[-1]}"


def _kind(given):
    """Names a value as TOML does."""
    if given is None:
        return "null"
    if isinstance(given, bool):
        return "true" if given else "false"
    if isinstance(given, str):
        return f"the text {_quote(given)}" if len(given) <= 40 else "a text"
    return f"the number {given}" if isinstance(given, (int, float)) else "an array" if isinstance(given, list) else "a table"


def _quote(text):
    return json.dumps(text, ensure_ascii=False)


def _key(key):
    return key if re.fullmatch("[A-Za-z0-9_-]+", key) else _quote(key)


def _below(path, key):
    return f"{path}.{key}" if path and key and not key.startswith("[") else path + key


# Small things.


def _apart(error):
    """The errors of a group, or the one."""
    return [e for one in error.exceptions for e in _apart(one)] if isinstance(error, BaseExceptionGroup) else [error]


def _tell(error):
    """An error for people: KeyError: 'x'."""
    return "; ".join(line.strip() for line in traceback.format_exception_only(error))


def _show(seconds):
    """A duration as settings have it: 500ms, 1m30s."""
    if seconds < 0:
        return "-" + _show(-seconds)
    if 0 < seconds < 1:
        return f"{seconds * 1000:.6g}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    parts = [f"{n}{unit}" for n, unit in ((hours, "h"), (minutes, "m")) if n]
    return "".join(parts + [f"{rest:.6g}s"] * (rest > 0 or not parts))


def _finite(seconds):
    """A time to wait, as threading wants it."""
    return None if seconds == math.inf else seconds


def _thread(work, *args):
    thread = threading.Thread(target=work, args=args, daemon=True)
    thread.start()
    return thread


def _read(stream, take):
    for line in stream:
        take(line)


def _end_group(process):
    """Ends a process group and returns when it is gone, or cannot be ended."""
    for last, patience in (signal.SIGTERM, 1), (signal.SIGKILL, 1):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, last)
            os.killpg(process.pid, signal.SIGCONT)  # one that is stopped would not notice
        end = time.monotonic() + patience
        while time.monotonic() < end:
            process.poll()
            if not _group_lives(process.pid):
                return
            time.sleep(0.005)


def _group_lives(group):
    """Whether a process of the group lives. Zombies do not: whoever ought to reap them may be slow to."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    for file in glob.glob("/proc/[0-9]*/stat"):
        with contextlib.suppress(OSError), open(file, errors="replace") as stat:
            # PID (NAME) STATE PPID PGRP, where the name may hold anything (proc_pid_stat(5)).
            state, _, pgrp = stat.read().rpartition(")")[2].split()[:3]
            if pgrp == str(group) and state not in "ZX":
                return True
    return False


# Under a supervisor.

_COOKIE, _COOKIE_VALUE, _VERSION = "DEPUTY_PLUGIN", "deputy.plugin", 1
_GRACE, _DEATH = 0.5, 0.9  # of an ending whose host is gone: for the act that runs, and for everything


class _Records(logging.Formatter):
    """A record of the log as deputy reads it, on one line."""

    LEVELS = {"WARNING": "WARN", "CRITICAL": "ERROR"}
    OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}

    def format(self, record):
        told = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": self.LEVELS.get(record.levelname, record.levelname),
            "msg": record.getMessage(),
        }
        told |= {k: v for k, v in vars(record).items() if k not in self.OWN}
        if record.exc_info:
            told["stack"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str, ensure_ascii=False, separators=(",", ":"))


def _hosted(plugin):
    """Serves a plugin until the host is gone or has told the process to end."""
    # The host decides when this process ends: it has to demote first. Caught, and
    # not ignored, because programs that an act starts would inherit that.
    for s in signal.SIGTERM, signal.SIGINT, signal.SIGHUP:
        signal.signal(s, lambda *_: None)
    faulthandler.enable()

    # The host expects one line. Whatever else is printed, by this process or one
    # that it starts, goes to the standard error, which is the log; and nobody reads
    # what tells that the host is gone.
    out, life = os.dup(1), os.dup(0)
    os.dup2(2, 1)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Records())
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    logging.getLogger("deputy").setLevel(logging.DEBUG)
    logging.getLogger("grpc").setLevel(logging.WARNING)

    versions = os.environ.get("PLUGIN_PROTOCOL_VERSIONS", str(_VERSION)).split(",")
    folder = os.environ.get("PLUGIN_UNIX_SOCKET_DIR") or tempfile.gettempdir()
    for name in list(os.environ):  # of no use to a program that an act starts
        if name == _COOKIE or name.startswith("PLUGIN_"):
            del os.environ[name]
    if str(_VERSION) not in versions:
        logging.error("plugin not served", extra={"cause": f"it speaks version {_VERSION} of the protocol, its host {', '.join(versions)}"})
        return 1

    import grpc  # late: by hand nobody needs it

    ends = threading.Event()
    wake = os.eventfd(0)

    def shut_down():
        ends.set()
        os.eventfd_write(wake, 1)

    server = _Server(plugin)
    # As many threads as there are calls: one that hangs keeps nobody waiting.
    rpc = grpc.server(concurrent.futures.ThreadPoolExecutor(256), options=[("grpc.max_receive_message_length", -1)])
    rpc.add_generic_rpc_handlers(_handlers(grpc, server, shut_down))
    socket = os.path.join(folder, f"plugin{os.getpid()}")
    mask = os.umask(0o077)
    rpc.add_insecure_port(f"unix:{socket}")
    rpc.start()
    os.umask(mask)
    os.write(out, f"1|{_VERSION}|unix|{socket}|grpc|\n".encode())
    os.close(out)

    both = select.poll()
    both.register(life, select.POLLIN)
    both.register(wake, select.POLLIN)
    while not ends.is_set():
        both.poll()
        if not ends.is_set() and not os.read(life, 4096):
            break  # the kernel closes the other end when the host is gone
    last = time.monotonic() + _DEATH
    if not ends.is_set():
        server.drain(_GRACE)  # what was promoted stays, for the next host to find
    rpc.stop(0.1).wait(max(0, min(0.2, last - time.monotonic())))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(socket)
    return 0


def _handlers(grpc, server, shut_down):
    """What is served: deputy's calls, and those by which a host of go-plugin knows and ends a plugin."""
    wire, plugin = _wire(), server.plugin
    code = grpc.StatusCode

    def seconds(context):
        some = context.time_remaining()
        return math.inf if some is None or some > 1e9 else some

    def answer(context, do):
        """do(), or the call's failure."""
        try:
            return do()
        except Expired as error:
            context.abort(code.FAILED_PRECONDITION, str(error) or "expired")
        except BaseException as error:
            context.abort(code.UNKNOWN, str(error) if isinstance(error, (Ended, RuntimeError)) else _tell(error))

    def able(context, capability):
        if capability not in plugin.capabilities:
            context.abort(code.UNIMPLEMENTED, f"{plugin.name} cannot {capability}")

    def describe(_, context):
        return wire.DescribeResponse(
            name=plugin.name, version=plugin.version, sdk_version=KIT, capabilities=plugin.capabilities, heartbeats=True, doc=plugin.doc,
            schema=json.dumps(plugin.settings.schema(), ensure_ascii=False), forced_bound_ns=int(plugin.forced_bound * 1e9),
        )

    def configure(r, context):
        given = (r.service, r.node, r.part, r.state_dir, r.config)
        wrong = answer(context, lambda: server.configure(given, r.term, r.validate_only, seconds(context)))
        return wire.ConfigureResponse(mistakes=[wire.Mistake(key=m.key, message=m.text) for m in wrong])

    def transition(r, context):
        t = _transition(r)
        able(context, t.action)
        call = _Call(min(t.timeout or math.inf, seconds(context)))
        events = queue.SimpleQueue()

        def say(percent, text):
            if events.qsize() < 16:  # nobody needs all of it
                events.put(wire.TransitionResponse(progress=wire.Progress(percent=percent, message=text)))

        call.progress = say
        alone = Ended("nobody waits for its result any more")
        if not context.add_callback(lambda: call.end(alone)):
            call.end(alone)
        # Before the first sign of life, so that who asks for a demotion after that
        # knows that it comes second.
        a = server.ask(t, call)
        _thread(lambda: events.put(server.act(a)))
        every = r.heartbeat_ns / 1e9 if r.heartbeat_ns > 0 else 1
        while True:
            try:
                event = events.get(timeout=every)
            except queue.Empty:
                event = wire.TransitionResponse(heartbeat=wire.Heartbeat())
            if isinstance(event, _Result):
                yield wire.TransitionResponse(result=wire.Result(
                    outcome=_OUTCOMES[event.outcome], detail=event.detail, refused=event.refused, retry_after_ns=int(event.retry_after * 1e9)))
                return
            yield event

    def renew(r, context):
        able(context, "renew")
        answer(context, lambda: server.call("renew", seconds(context), lambda made, _: made.renew(r.lease_until_ns / 1e9)))
        return wire.RenewResponse()

    def check(r, context):
        able(context, "check")
        h = answer(context, lambda: server.check(r.role, r.term, seconds(context)))
        return wire.CheckResponse(fit=h.fit, detail=h.detail, position=h.position, certain=h.certain)

    def watch(_, context):
        able(context, "watch")
        events, stop, told = queue.SimpleQueue(), threading.Event(), threading.Event()

        def changed():
            if not told.is_set():  # one that was not told yet tells of this one, too
                told.set()
                events.put(None)

        def watching(made, part):
            with server.changed:
                part.watched.append(stop.set)
                if part.retired:
                    stop.set()
            try:
                made.watch(changed, stop)
            finally:
                with server.changed:
                    part.watched.remove(stop.set)

        def work():
            try:
                server.call("watch", math.inf, watching)
                events.put("")
            except BaseException as error:
                events.put(_tell(error))

        if not context.add_callback(stop.set):
            return
        _thread(work)
        while (event := events.get()) is None:
            told.clear()
            yield wire.WatchResponse()
        if event:
            context.abort(code.UNKNOWN, event)

    def rank(r, context):
        able(context, "rank")
        orders = answer(context, lambda: server.call("rank", seconds(context), lambda made, _: made.rank(r.mine, dict(r.others))))
        return wire.RankResponse(orders={node: _ORDERS.get(order, 0) for node, order in orders.items()})

    def drain(r, context):
        if not server.drain(min(r.timeout_ns / 1e9 or math.inf, seconds(context))):
            context.abort(code.DEADLINE_EXCEEDED, "drain: an act still runs")
        return wire.DrainResponse()

    def end(_, context):
        context.add_callback(shut_down)  # once it is answered
        return b""

    def unary(do, request=None):
        return grpc.unary_unary_rpc_method_handler(do, request and request.FromString, lambda m: m if isinstance(m, bytes) else m.SerializeToString())

    def stream(do, request=None):
        return grpc.unary_stream_rpc_method_handler(do, request and request.FromString, lambda m: m.SerializeToString())

    generic = grpc.method_handlers_generic_handler
    return (
        generic("deputy.plugin.v1.PluginService", {
            "Describe": unary(describe, wire.DescribeRequest),
            "Configure": unary(configure, wire.ConfigureRequest),
            "Transition": stream(transition, wire.TransitionRequest),
            "Renew": unary(renew, wire.RenewRequest),
            "Check": unary(check, wire.CheckRequest),
            "Watch": stream(watch, wire.WatchRequest),
            "Rank": unary(rank, wire.RankRequest),
            "Drain": unary(drain, wire.DrainRequest),
        }),
        # A HealthCheckResponse with SERVING, and a stream of outputs in which nothing comes.
        generic("grpc.health.v1.Health", {"Check": unary(lambda _, context: b"\x08\x01")}),
        generic("plugin.GRPCController", {"Shutdown": unary(end)}),
        generic("plugin.GRPCStdio", {"StreamStdio": stream(lambda _, context: iter(()))}),
    )


_ACTIONS = {1: "promote", 2: "demote", 3: "follow", 4: "fence"}
_OUTCOMES = {"done": 1, "already": 2, "failed-unchanged": 3, "failed-unknown": 4, "stale-term": 5}
_ORDERS = {"ahead": 1, "equal": 2, "behind": 3}


def _transition(r):
    """Reads a transition off the wire."""

    def peer(p):
        return Peer(p.node, p.address)

    return Transition(
        action=_ACTIONS.get(r.action, "nothing"), service=r.service, node=r.node, term=r.term, id=r.id,
        mode="forced" if r.mode == 2 else "planned", reason=r.reason, cause=r.cause, attempt=r.attempt, timeout=r.timeout_ns / 1e9,
        lease_until=r.lease_until_ns / 1e9, previous=peer(r.previous), primary=peer(r.primary), members=tuple(peer(m) for m in r.members),
        state_dir=r.state_dir,
    )


# By hand.


class _Usage(Exception):
    pass


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise _Usage(message)


def _seconds(text):
    try:
        return _Shape(timedelta).make(text).total_seconds()
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is not a duration, like "500ms" or "1m30s"') from None


class _ByHand:
    """A plugin's program when a person has started it. Its exit codes are what deputy takes from scripts."""

    EXITS = {"done": 0, "already": 10, "failed-unchanged": 75, "stale-term": 40}

    def __init__(self, plugin):
        self.p, self.program = plugin, f"deputy-plugin-{plugin.name}"

    def run(self, args):
        verb, args = (args[0] if args else "help"), args[1:]
        verbs = {"describe": self.describe, "validate": self.validate, "call": self.call, "test": self.test}
        if verb in ("help", "-h", "--help"):
            return self.help()
        if verb == "--version":
            print(self.p.name, self.p.version)
            return 0
        logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(message)s", level=logging.INFO)
        try:
            if verb not in verbs:
                raise _Usage(f'unknown command "{verb}"; {_suggest(verb, list(verbs))}')
            return verbs[verb](args)
        except _Usage as error:
            print(error, file=sys.stderr)
            return 64
        except Exception as error:
            for one in _apart(error):
                print(one if isinstance(one, Mistake) else _tell(one), file=sys.stderr)
            return 78 if isinstance(_apart(error)[0], Mistake) else 1

    def help(self):
        summary = self.p.doc.partition("\n")[0] or "A plugin of deputy."
        print(f"""{summary}

This is the plugin "{self.p.name}" of deputy, which starts it by itself: installed as
/usr/libexec/deputy/plugins/{self.program}, or below /usr/local, it is
  use = "{self.p.name}"
in the definition of a service.

By hand:
  {self.program} describe [-o table|json|markdown|schema]   what it is, and its settings
  {self.program} validate FILE|-                            settings as JSON: what is wrong with them
  {self.program} call ACT [--settings FILE|-] [...]         one act, tried here and now; call --help tells more
  {self.program} test [--settings FILE.toml] [...]          does it keep the contract? (needs deputy)
  {self.program} --version

Settings:""")
        self.settings()
        return 0

    def settings(self):
        rows = [(k, v, f"default {s}" if s not in ("", "required") else s, " ".join(d.split())) for k, v, s, d in self.p.settings.rows()]
        widths = [max(map(len, column)) for column in zip(*rows)]
        for row in rows or [("none",)]:
            print("  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths or [0])).rstrip())

    def describe(self, args):
        parser = _Parser(f"{self.program} describe")
        parser.add_argument("-o", dest="form", default="table", choices=["table", "json", "markdown", "schema"], help="schema is a JSON Schema of the settings")
        form, p = parser.parse_args(args).form, self.p
        if form == "schema":
            print(json.dumps(p.settings.schema(), ensure_ascii=False))
        elif form == "json":
            print(json.dumps({
                "name": p.name, "version": p.version, "sdk": KIT, "capabilities": p.capabilities, "forced_bound_ns": int(p.forced_bound * 1e9),
                "heartbeats": True, "schema": p.settings.schema(), "doc": p.doc,
            }, indent=2, ensure_ascii=False))
        elif form == "markdown":
            print("| setting | value | default | what it is for |\n|---|---|---|---|" if p.settings.rows() else "It has no settings.")
            for key, value, standard, doc in p.settings.rows():
                standard = f"`{standard}`" if standard not in ("", "required") else standard
                print(f"| `{key}` | " + " | ".join(" ".join(c.replace("|", "\\|").split()) for c in (value, standard, doc)) + " |")
        else:
            print(f"name           {p.name}\nversion        {p.version}\ncan            {', '.join(p.capabilities)}")
            print(f"forced demote  {_show(p.forced_bound) if p.forced_bound else 'not said'}\nsettings")
            self.settings()
            if p.doc:
                print(f"\n{p.doc}")
        return 0

    @staticmethod
    def read(file):
        if file in ("", "-"):
            return sys.stdin.read() if file else "{}"
        try:
            return pathlib.Path(file).read_text()
        except OSError as error:
            raise Mistake("", f"read settings: {error}") from None

    def validate(self, args):
        parser = _Parser(f"{self.program} validate")
        parser.add_argument("file", metavar="FILE|-", help="the settings, a JSON object")
        self.p.settings.decode(self.read(parser.parse_args(args).file))
        return 0

    def call(self, args):
        acts = [c for c in self.p.capabilities if c != "watch"]  # that has no end
        parser = _Parser(f"{self.program} call", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        parser.add_argument("act", metavar="ACT", choices=acts, help="|".join(acts))
        parser.add_argument("others", metavar="NODE=POSITION", nargs="*", help="of a rank, the other nodes")
        parser.add_argument("--settings", default="", metavar="FILE|-", help="a JSON object")
        parser.add_argument("--timeout", type=_seconds, default="30s", help="how long it may take")
        parser.add_argument("--mode", choices=["planned", "forced"], default="planned", help="of a demote")
        parser.add_argument("--role", choices=["primary", "standby", "candidate"], default="primary", help="of a check, what to be fit for")
        parser.add_argument("--until-in", type=_seconds, default="10s", help="how long the lease still holds")
        parser.add_argument("--mine", default="", help="of a rank, this node's position")
        parser.add_argument("--term", type=int, default=1, help="the term")
        parser.add_argument("--service", default="by-hand", help="the service's name")
        parser.add_argument("--node", default=os.uname().nodename, help="this node's name")
        parser.add_argument("--state-dir", default="", help="where it may keep things")
        parser.add_argument("--primary", default="", help="of a follow, the primary's node; of a fence, the victim's")
        parser.add_argument("--primary-address", default="", help="and its address")
        try:
            o = parser.parse_intermixed_args(args)
        except argparse.ArgumentError as error:
            raise _Usage(str(error)) from None
        server, deadline = _Server(self.p), time.monotonic() + o.timeout
        wrong = server.configure((o.service, o.node, self.p.name, o.state_dir, self.read(o.settings)), 0, False, o.timeout)
        if wrong:
            raise ExceptionGroup("settings", wrong)
        try:
            return self.act(server, o, deadline - time.monotonic())
        finally:
            server.drain(_GRACE)

    def act(self, server, o, seconds):
        if o.act == "check":
            return self.check(server, o, seconds)
        if o.act == "renew":
            server.call("renew", seconds, lambda made, _: made.renew(now() + o.until_in))
            print("done")
            return 0
        if o.act == "rank":
            if wrong := [other for other in o.others if "=" not in other]:
                raise _Usage(f"{wrong[0]!r} is not NODE=POSITION")
            orders = server.call("rank", seconds, lambda made, _: made.rank(o.mine, dict(other.split("=", 1) for other in o.others)))
            for node, order in sorted(orders.items()):
                print(node, order)
            return 0
        began, peer = time.monotonic(), Peer(o.primary, o.primary_address)
        call = _Call(seconds)
        call.progress = lambda percent, text: print(
            f"{_show(round(time.monotonic() - began, 3)):>8}  {f'{percent:3.0f}% ' if percent >= 0 else ''}{text}", file=sys.stderr)
        r = server.act(server.ask(Transition(
            action=o.act, service=o.service, node=o.node, term=o.term, id="by-hand", mode=o.mode, reason="switchover", cause="called by hand",
            timeout=o.timeout, lease_until=now() + o.until_in, primary=peer, previous=peer if o.act == "fence" else Peer(), state_dir=o.state_dir,
        ), call))
        again = f" (not again before {_show(r.retry_after)})" if r.retry_after else ""
        print(("refused" if r.refused else r.outcome) + (f": {r.detail}" if r.detail else "") + again)
        return 20 if r.refused else self.EXITS.get(r.outcome, 1)

    @staticmethod
    def check(server, o, seconds):
        try:
            h = server.check(o.role, o.term, seconds)
        except Exception as error:
            print("no answer:", _tell(error))
            return 3
        print(("fit" if h.fit else "not fit") + (f": {h.detail}" if h.detail else ""))
        if h.position:
            print("position", h.position)
        return 0 if h.fit else 2

    def test(self, args):
        deputy = os.environ.get("DEPUTY", "deputy")
        try:
            os.execvp(deputy, [deputy, "plugin", "test", os.path.abspath(sys.argv[0]), *args])
        except OSError as error:
            print(f"test: {deputy}: {error}\nThe tests come with deputy: install it, or name its program in $DEPUTY.", file=sys.stderr)
            return 1


# The wire: a FileDescriptorSet of sdk/proto, as `make generate` writes it here.

_WIRE = """
CowbCh1kZXB1dHkvcGx1Z2luL3YxL3BsdWdpbi5wcm90bxIQZGVwdXR5LnBsdWdpbi52MSIRCg9EZXNjcmliZVJlcXVlc3Qi9wEKEERlc2NyaWJlUmVzcG9u
c2USEgoEbmFtZRgBIAEoCVIEbmFtZRIYCgd2ZXJzaW9uGAIgASgJUgd2ZXJzaW9uEh8KC3Nka192ZXJzaW9uGAMgASgJUgpzZGtWZXJzaW9uEiIKDGNhcGFi
aWxpdGllcxgEIAMoCVIMY2FwYWJpbGl0aWVzEhYKBnNjaGVtYRgFIAEoCVIGc2NoZW1hEhAKA2RvYxgGIAEoCVIDZG9jEiYKD2ZvcmNlZF9ib3VuZF9ucxgH
IAEoA1INZm9yY2VkQm91bmROcxIeCgpoZWFydGJlYXRzGAggASgIUgpoZWFydGJlYXRzIsIBChBDb25maWd1cmVSZXF1ZXN0EhgKB3NlcnZpY2UYASABKAlS
B3NlcnZpY2USEgoEbm9kZRgCIAEoCVIEbm9kZRISCgRwYXJ0GAMgASgJUgRwYXJ0EhsKCXN0YXRlX2RpchgEIAEoCVIIc3RhdGVEaXISFgoGY29uZmlnGAUg
ASgJUgZjb25maWcSEgoEdGVybRgGIAEoBFIEdGVybRIjCg12YWxpZGF0ZV9vbmx5GAcgASgIUgx2YWxpZGF0ZU9ubHkiSgoRQ29uZmlndXJlUmVzcG9uc2US
NQoIbWlzdGFrZXMYASADKAsyGS5kZXB1dHkucGx1Z2luLnYxLk1pc3Rha2VSCG1pc3Rha2VzIjUKB01pc3Rha2USEAoDa2V5GAEgASgJUgNrZXkSGAoHbWVz
c2FnZRgCIAEoCVIHbWVzc2FnZSI0CgRQZWVyEhIKBG5vZGUYASABKAlSBG5vZGUSGAoHYWRkcmVzcxgCIAEoCVIHYWRkcmVzcyKoBAoRVHJhbnNpdGlvblJl
cXVlc3QSDgoCaWQYASABKAlSAmlkEjAKBmFjdGlvbhgCIAEoDjIYLmRlcHV0eS5wbHVnaW4udjEuQWN0aW9uUgZhY3Rpb24SKgoEbW9kZRgDIAEoDjIWLmRl
cHV0eS5wbHVnaW4udjEuTW9kZVIEbW9kZRIYCgdzZXJ2aWNlGAQgASgJUgdzZXJ2aWNlEhIKBG5vZGUYBSABKAlSBG5vZGUSEgoEdGVybRgGIAEoBFIEdGVy
bRIWCgZyZWFzb24YByABKAlSBnJlYXNvbhIUCgVjYXVzZRgIIAEoCVIFY2F1c2USGAoHYXR0ZW1wdBgJIAEoDVIHYXR0ZW1wdBIdCgp0aW1lb3V0X25zGAog
ASgDUgl0aW1lb3V0TnMSJAoObGVhc2VfdW50aWxfbnMYCyABKANSDGxlYXNlVW50aWxOcxIyCghwcmV2aW91cxgMIAEoCzIWLmRlcHV0eS5wbHVnaW4udjEu
UGVlclIIcHJldmlvdXMSMAoHcHJpbWFyeRgNIAEoCzIWLmRlcHV0eS5wbHVnaW4udjEuUGVlclIHcHJpbWFyeRIwCgdtZW1iZXJzGA4gAygLMhYuZGVwdXR5
LnBsdWdpbi52MS5QZWVyUgdtZW1iZXJzEhsKCXN0YXRlX2RpchgPIAEoCVIIc3RhdGVEaXISIQoMaGVhcnRiZWF0X25zGBAgASgDUgtoZWFydGJlYXROcyLI
AQoSVHJhbnNpdGlvblJlc3BvbnNlEjsKCWhlYXJ0YmVhdBgBIAEoCzIbLmRlcHV0eS5wbHVnaW4udjEuSGVhcnRiZWF0SABSCWhlYXJ0YmVhdBI4Cghwcm9n
cmVzcxgCIAEoCzIaLmRlcHV0eS5wbHVnaW4udjEuUHJvZ3Jlc3NIAFIIcHJvZ3Jlc3MSMgoGcmVzdWx0GAMgASgLMhguZGVwdXR5LnBsdWdpbi52MS5SZXN1
bHRIAFIGcmVzdWx0QgcKBWV2ZW50IgsKCUhlYXJ0YmVhdCI+CghQcm9ncmVzcxIYCgdwZXJjZW50GAEgASgBUgdwZXJjZW50EhgKB21lc3NhZ2UYAiABKAlS
B21lc3NhZ2UilQEKBlJlc3VsdBIzCgdvdXRjb21lGAEgASgOMhkuZGVwdXR5LnBsdWdpbi52MS5PdXRjb21lUgdvdXRjb21lEhYKBmRldGFpbBgCIAEoCVIG
ZGV0YWlsEhgKB3JlZnVzZWQYAyABKAhSB3JlZnVzZWQSJAoOcmV0cnlfYWZ0ZXJfbnMYBCABKANSDHJldHJ5QWZ0ZXJOcyI0CgxSZW5ld1JlcXVlc3QSJAoO
bGVhc2VfdW50aWxfbnMYASABKANSDGxlYXNlVW50aWxOcyIPCg1SZW5ld1Jlc3BvbnNlIjYKDENoZWNrUmVxdWVzdBISCgRyb2xlGAEgASgJUgRyb2xlEhIK
BHRlcm0YAiABKARSBHRlcm0ibwoNQ2hlY2tSZXNwb25zZRIQCgNmaXQYASABKAhSA2ZpdBIWCgZkZXRhaWwYAiABKAlSBmRldGFpbBIaCghwb3NpdGlvbhgD
IAEoCVIIcG9zaXRpb24SGAoHY2VydGFpbhgEIAEoCFIHY2VydGFpbiIOCgxXYXRjaFJlcXVlc3QiDwoNV2F0Y2hSZXNwb25zZSKfAQoLUmFua1JlcXVlc3QS
EgoEbWluZRgBIAEoCVIEbWluZRJBCgZvdGhlcnMYAiADKAsyKS5kZXB1dHkucGx1Z2luLnYxLlJhbmtSZXF1ZXN0Lk90aGVyc0VudHJ5UgZvdGhlcnMaOQoL
T3RoZXJzRW50cnkSEAoDa2V5GAEgASgJUgNrZXkSFAoFdmFsdWUYAiABKAlSBXZhbHVlOgI4ASKmAQoMUmFua1Jlc3BvbnNlEkIKBm9yZGVycxgBIAMoCzIq
LmRlcHV0eS5wbHVnaW4udjEuUmFua1Jlc3BvbnNlLk9yZGVyc0VudHJ5UgZvcmRlcnMaUgoLT3JkZXJzRW50cnkSEAoDa2V5GAEgASgJUgNrZXkSLQoFdmFs
dWUYAiABKA4yFy5kZXB1dHkucGx1Z2luLnYxLk9yZGVyUgV2YWx1ZToCOAEiLQoMRHJhaW5SZXF1ZXN0Eh0KCnRpbWVvdXRfbnMYASABKANSCXRpbWVvdXRO
cyIPCg1EcmFpblJlc3BvbnNlKmwKBkFjdGlvbhIWChJBQ1RJT05fVU5TUEVDSUZJRUQQABISCg5BQ1RJT05fUFJPTU9URRABEhEKDUFDVElPTl9ERU1PVEUQ
AhIRCg1BQ1RJT05fRk9MTE9XEAMSEAoMQUNUSU9OX0ZFTkNFEAQqPwoETW9kZRIUChBNT0RFX1VOU1BFQ0lGSUVEEAASEAoMTU9ERV9QTEFOTkVEEAESDwoL
TU9ERV9GT1JDRUQQAiqbAQoHT3V0Y29tZRIXChNPVVRDT01FX1VOU1BFQ0lGSUVEEAASEAoMT1VUQ09NRV9ET05FEAESEwoPT1VUQ09NRV9BTFJFQURZEAIS
HAoYT1VUQ09NRV9GQUlMRURfVU5DSEFOR0VEEAMSGgoWT1VUQ09NRV9GQUlMRURfVU5LTk9XThAEEhYKEk9VVENPTUVfU1RBTEVfVEVSTRAFKlIKBU9yZGVy
EhUKEU9SREVSX1VOU1BFQ0lGSUVEEAASDwoLT1JERVJfQUhFQUQQARIPCgtPUkRFUl9FUVVBTBACEhAKDE9SREVSX0JFSElORBADMoQFCg1QbHVnaW5TZXJ2
aWNlElEKCERlc2NyaWJlEiEuZGVwdXR5LnBsdWdpbi52MS5EZXNjcmliZVJlcXVlc3QaIi5kZXB1dHkucGx1Z2luLnYxLkRlc2NyaWJlUmVzcG9uc2USVAoJ
Q29uZmlndXJlEiIuZGVwdXR5LnBsdWdpbi52MS5Db25maWd1cmVSZXF1ZXN0GiMuZGVwdXR5LnBsdWdpbi52MS5Db25maWd1cmVSZXNwb25zZRJZCgpUcmFu
c2l0aW9uEiMuZGVwdXR5LnBsdWdpbi52MS5UcmFuc2l0aW9uUmVxdWVzdBokLmRlcHV0eS5wbHVnaW4udjEuVHJhbnNpdGlvblJlc3BvbnNlMAESSAoFUmVu
ZXcSHi5kZXB1dHkucGx1Z2luLnYxLlJlbmV3UmVxdWVzdBofLmRlcHV0eS5wbHVnaW4udjEuUmVuZXdSZXNwb25zZRJICgVDaGVjaxIeLmRlcHV0eS5wbHVn
aW4udjEuQ2hlY2tSZXF1ZXN0Gh8uZGVwdXR5LnBsdWdpbi52MS5DaGVja1Jlc3BvbnNlEkoKBVdhdGNoEh4uZGVwdXR5LnBsdWdpbi52MS5XYXRjaFJlcXVl
c3QaHy5kZXB1dHkucGx1Z2luLnYxLldhdGNoUmVzcG9uc2UwARJFCgRSYW5rEh0uZGVwdXR5LnBsdWdpbi52MS5SYW5rUmVxdWVzdBoeLmRlcHV0eS5wbHVn
aW4udjEuUmFua1Jlc3BvbnNlEkgKBURyYWluEh4uZGVwdXR5LnBsdWdpbi52MS5EcmFpblJlcXVlc3QaHy5kZXB1dHkucGx1Z2luLnYxLkRyYWluUmVzcG9u
c2VCJ1olZ2l0aHViLmNvbS9kZXB1dHktaGEvZGVwdXR5L3Nkay9wcm90b2IGcHJvdG8z
"""


def _wire():
    """The messages of the wire, as classes."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(base64.b64decode(_WIRE)).file:
        pool.AddSerializedFile(file.SerializeToString())
    make = getattr(message_factory, "GetMessageClass", None) or message_factory.MessageFactory(pool).GetPrototype
    messages = file.message_type
    return types.SimpleNamespace(**{m.name: make(pool.FindMessageTypeByName(f"{file.package}.{m.name}")) for m in messages})

#!/usr/bin/python3
"""Can everything, and what it does is told by its settings."""

import contextlib
import enum
import ipaddress
import os
import signal
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

import deputy_plugin as deputy


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


@dataclass
class Retry:
    count: int = deputy.setting("how often", default=3, min=1, max=9)
    wait: timedelta = deputy.setting("how long between", default=timedelta(seconds=1.5), min=timedelta(milliseconds=10))
    where: str = deputy.setting("in which file", default="")


@dataclass
class Address:
    address: ipaddress.IPv4Interface | ipaddress.IPv6Interface = deputy.setting("what it adds")
    label: str | None = deputy.setting("how it is called", default=None)


@dataclass
class Settings:
    file: Path = deputy.setting("the file that is there on the primary")
    how: Literal["plain", "slow", "child", "hang", "raise", "exit", "daemon"] = deputy.setting("how it promotes", default="plain")
    raises: str = deputy.setting("what an act raises", default="")
    takes: timedelta = deputy.setting("how long a promote takes", default=timedelta(0))
    noise: int = deputy.setting("how many bytes each act prints", default=0)
    retry: Retry = deputy.setting("what is tried again", default=Retry())
    addresses: list[Address] = deputy.setting("what it has", default=[])
    peers: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = deputy.setting("whom it asks", default=[])
    weights: dict[str, float] = deputy.setting("of each node", default={})
    colour: Colour = deputy.setting("of no use", default=Colour.RED)
    sure: bool = deputy.setting("of no use either", default=True)
    password: str = deputy.setting("a secret", default="", secret=True)
    bad: str = deputy.setting("what its class complains of", default="")

    def __post_init__(self):
        if self.retry.count == 7:
            raise deputy.Mistake("retry.count", "7 is unlucky")
        if self.colour is Colour.GREEN and not self.sure:
            raise ValueError("green is for the sure")


class Part:
    def __init__(self, settings, host):
        if settings.bad:
            raise deputy.Mistake("bad", settings.bad)
        self.s, self.host = settings, host
        self.pid = Path(f"{settings.file}.pid")
        host.log.warning("is made", extra={"for": host.service, "password": len(settings.password)})

    def make(self):
        """What is there is there until its lease ends."""
        new = self.s.file.with_suffix(".new")
        new.write_text(str(int(self.until * 1e9)))
        new.rename(self.s.file)

    def noise(self):
        if self.s.noise:
            print("x" * self.s.noise)
            print("y" * self.s.noise, file=sys.stderr)
            os.write(1, b"z" * self.s.noise + b"\n")

    def promote(self, act):
        self.noise()
        self.until = act.lease_until
        deputy.note(f"promoted for term {act.term}")
        if self.s.raises:
            raise eval(self.s.raises, vars(deputy))
        if self.s.file.exists() and int(self.s.file.read_text()) > deputy.now() * 1e9:
            raise deputy.Already
        match self.s.how:
            case "slow":
                end = time.monotonic() + self.s.takes.total_seconds()
                while time.monotonic() < end:
                    deputy.progress(50, "half of it")
                    deputy.sleep(0.01)
            case "child":
                deputy.run("sh", "-c", f"sleep {self.s.takes.total_seconds()}; echo said; echo complained >&2")
            case "hang":
                time.sleep(self.s.takes.total_seconds())
            case "exit":
                sys.exit(3)
            case "daemon":
                self.pid.write_text(deputy.run("sh", "-c", "sleep 60 & echo $!"))
        self.make()

    def demote(self, act):
        self.noise()
        if self.pid.exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(self.pid.read_text()), signal.SIGKILL)
            self.pid.unlink()
        try:
            self.s.file.unlink()
        except FileNotFoundError:
            raise deputy.Already(f"{self.s.file} is not there") from None

    def renew(self, until):
        self.until = until
        if self.s.file.exists():
            if int(self.s.file.read_text()) <= deputy.now() * 1e9:
                self.s.file.unlink()
                raise deputy.Expired("its time was over")
            self.make()

    def check(self, role):
        if self.s.how == "hang":
            time.sleep(self.s.takes.total_seconds())
        if self.s.how == "raise":
            return None
        return deputy.Health(role != "candidate", f"asked as {role}", "7", certain=True)

    def watch(self, changed, stop):
        changed()
        changed()
        stop.wait()
        Path(f"{self.s.file}.unwatched").touch()

    def rank(self, mine, others):
        # What is no position of ours is left out: it cannot be compared.
        return {node: "ahead" if int(mine) > int(p) else "behind" if int(mine) < int(p) else "equal" for node, p in others.items() if p.isdigit()}

    def follow(self, act):
        if act.forced or act.members != (deputy.Peer("a", "192.0.2.1"), deputy.Peer("b")):
            raise deputy.Refuse(f"strange: {act}")
        deputy.note(f"{act.service} follows {act.primary.node} at {act.primary.address} in {act.state_dir}: {act.reason}, {act.cause}")

    def fence(self, victim, act):
        if victim.node != "victim":
            raise deputy.Refuse(f"unknown: {victim.node}")

    def close(self):
        Path(f"{self.s.file}.closed").touch()


if __name__ == "__main__":
    deputy.main("all", Part, Settings, doc=__doc__, version="1.2.3", forced_bound=0.5)

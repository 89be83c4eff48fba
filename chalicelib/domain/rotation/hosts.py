"""Whether the registry's hosts go along: by what they report of themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from chalicelib.domain.pki.authorities import AuthorityKind
from chalicelib.domain.registry_host.report import HostReport, Served
from chalicelib.domain.rotation.model import Facts, HostSight, Obstacle, lines

_NO_HOST = "no registry host is known: none runs under its profile, and none has reported of late"
_WITHOUT = {
    AuthorityKind.CLIENT: "the registry refuses every certificate issued from then on, until it "
    "has the new CA",
    AuthorityKind.SERVER: "a registry host without it goes on with the certificate it has",
}


def hosts_without(kind: AuthorityKind, new: str, facts: Facts) -> Obstacle | None:
    """Those that are not known to have the CA *new*; and if there is none at all."""
    if not facts.hosts:
        return Obstacle(_NO_HOST, (), _WITHOUT[kind])
    lacking = lacking_hosts(kind, new, facts)
    if not lacking:
        return None
    what = f"{len(lacking)} of {len(facts.hosts)} registry hosts are not known to have CA {new}"
    return Obstacle(what, lines(lacking), _WITHOUT[kind])


def lacking_hosts(kind: AuthorityKind, new: str, facts: Facts) -> Mapping[str, str]:
    """By their ids, why they do not count as having it."""

    def why(report: HostReport) -> str:
        has = report.client_ca if kind is AuthorityKind.CLIENT else report.ca
        return "" if new in has else "it does not have it yet; it looks every minute"

    return _reasons(facts.hosts, why)


def hosts_not_under(active: str, facts: Facts) -> Obstacle | None:
    """Those that are not known to serve a certificate of the server CA that signs now."""
    breaks = "who trusts the new CA alone does not trust a registry that serves under another"
    if not facts.hosts:
        return Obstacle(_NO_HOST, (), breaks)

    def why(report: HostReport) -> str:
        certificate = report.certificate
        if certificate is None:
            return "it has no certificate"
        if certificate.issuer != active:
            return f"its certificate is of CA {certificate.issuer}; it renews that within minutes"
        return "" if certificate.served is Served.YES else "it was not seen to serve its newest one"

    lacking = _reasons(facts.hosts, why)
    if not lacking:
        return None
    what = f"{len(lacking)} of {len(facts.hosts)} registry hosts may not serve under CA {active}"
    return Obstacle(what, lines(lacking), breaks)


def _reasons(hosts: Sequence[HostSight], why: Callable[[HostReport], str]) -> Mapping[str, str]:
    found = {host.instance_id: _reason(host.report, why) for host in hosts}
    return {instance_id: reason for instance_id, reason in found.items() if reason}


def _reason(report: HostReport | None, why: Callable[[HostReport], str]) -> str:
    """*why*, of a report that counts; or why it does not count."""
    if report is None:
        return "no report of the last 15 minutes; is registry-refresh at work there?"
    if not report.ok:
        return f"its refresh fails: {report.last_error[:200] or 'it does not say why'}"
    return why(report) if report.taken else "its nginx has not taken the newest files yet"

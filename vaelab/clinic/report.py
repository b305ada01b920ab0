"""What a check-up says: findings, numbers, and how both are shown."""

from dataclasses import dataclass, field

from ..teaching import table


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    code: its name. severity: "serious" or "note". evidence: what was seen, in numbers. remedy:
    what to do. notebook: where it is taught, "" where only docs/findings.md explains it.
    """

    code: str
    severity: str
    evidence: str
    remedy: str
    notebook: str

    @property
    def see(self):
        """Where to read more: a notebook, or the section of this finding in docs/findings.md."""
        return self.notebook or f"docs/findings.md#{self.code}"


@dataclass(frozen=True)
class Report:
    """What `checkup` found. findings: causes before symptoms. numbers: name -> measured, as text.

    looked_for: the codes of all checks that were made. unchecked: code -> what was missing for it.
    beta: b / a for cross-entropy. sigma2: b / (2a) for squared error. loss_form: the form of the
    reconstruction error. Each is None where it was not recovered.
    """

    findings: list = field(default_factory=list)
    numbers: dict = field(default_factory=dict)
    looked_for: tuple = ()
    unchecked: dict = field(default_factory=dict)
    beta: float | None = None
    sigma2: float | None = None
    loss_form: str | None = None

    @property
    def serious(self):
        """The codes of the serious findings, in order."""
        return [finding.code for finding in self.findings if finding.severity == "serious"]

    @property
    def healthy(self):
        """Whether nothing serious was found. It does not mean that the model is good."""
        return not self.serious

    @property
    def verdict(self):
        """One line. It never says that a model is well."""
        if self.healthy:
            return "nothing serious found"
        codes = dict.fromkeys(self.serious)  # a code may have been found in two places
        return f"{len(self.serious)} serious: {', '.join(codes)}"

    @property
    def scope(self):
        """What the verdict covers, and what it does not."""
        text = f"{len(self.looked_for)} kinds of faults were looked for"
        if not self.unchecked:
            return text
        return f"{text}; not checked: {', '.join(self.unchecked)}"

    def __repr__(self):
        lines = [self.verdict, self.scope]
        for finding in self.findings:
            lines += ["", f"{finding.code} ({finding.severity}; see {finding.see})"]
            lines += [f"  seen: {finding.evidence}", f"  do:   {finding.remedy}"]
        width = max(map(len, self.numbers), default=0)
        lines.append("")
        lines += [f"{name.ljust(width)}  {text}" for name, text in self.numbers.items()]
        return "\n".join(lines)

    def _repr_html_(self):
        parts = [f"<p><b>{self.verdict}</b><br>{self.scope}</p>"]
        if self.findings:
            columns = ("finding", "severity", "seen", "do", "more")
            rows = [(f.code, f.severity, f.evidence, f.remedy, f.see) for f in self.findings]
            parts.append(table(columns, rows, align="left")._repr_html_())
        measured = list(self.numbers.items())
        parts.append(table(("measured", ""), measured, align="left")._repr_html_())
        return "".join(parts)


def span(t):
    """The range of a tensor's values, as text."""
    return f"[{t.min():.3g}, {t.max():.3g}]"

"""Audit: verifies from topics, databases and e-mails that every promise was kept.

report = await audit(settings)
assert report.ok, report.violations
"""

from ecosystem.audit.formats import as_json, print_report
from ecosystem.audit.report import AuditError, Report, Violation, ViolationKind
from ecosystem.audit.run import audit

__all__ = ["AuditError", "Report", "Violation", "ViolationKind", "as_json", "audit", "print_report"]

"""All admin acts, by name. The modules beside hold them by what they act on.

To add an act, write its function in its module and add a row to the table at the module's end: name, role, fields,
function. Everything else follows from the row: the token check, the audit record of its use, its metric label, and its
line in docs/REFERENCE.md (the first line of its docstring).
"""

from router.usecases.admin.acts.extensions import EXTENSION_ACTS
from router.usecases.admin.acts.policies import POLICY_ACTS
from router.usecases.admin.acts.providers import PROVIDER_ACTS
from router.usecases.admin.acts.tenants import TENANT_ACTS

ACTS = {act.name: act for act in (*PROVIDER_ACTS, *EXTENSION_ACTS, *TENANT_ACTS, *POLICY_ACTS)}

"""The operators' console: every page below `/ops`, behind one gate."""

from fastapi import APIRouter, Depends

from worker.web.ops import accounts, actions, anomalies, jobs, login, overview, quarantine, search, sources
from worker.web.ops.gate import admit

router = APIRouter(include_in_schema=False)
router.include_router(login.router, prefix="/ops")
for part in (overview, jobs, quarantine, search, accounts, sources, anomalies, actions):
    router.include_router(part.router, prefix="/ops", dependencies=[Depends(admit)])

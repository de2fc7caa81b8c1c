"""`/v1/…`: what SendGrid has no shape for, so that a sender's programs can do what the command line does for it."""

from fastapi import APIRouter

from worker.web.asker import BEARER
from worker.web.v1 import groups, lists, people

router = APIRouter(prefix="/v1", dependencies=[BEARER])
for _part in (people, groups, lists):
    router.include_router(_part.router)

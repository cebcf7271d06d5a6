"""salesforce-bulk, a client of Bulk API 1.0, against the org that `run` has started."""

import unittest
from unittest import mock

import requests
from salesforce_bulk import BulkApiError, SalesforceBulk
from simple_salesforce import SalesforceLogin

from python_support import ORG, ToTheOrg, pull, session, stats


def login():
    user = {name: ORG[name] for name in ("username", "password", "security_token")}
    return SalesforceLogin(session=session(), **user)[0]


class Test(unittest.TestCase):
    def setUp(self):
        self.bulk = SalesforceBulk(sessionId=login(), host=ORG["base_url"])

    def test_its_own_login(self):
        # It takes no session of requests: all new ones lead to the org.
        class Session(requests.Session):
            def __init__(self):
                super().__init__()
                self.trust_env = False
                self.mount("https://", ToTheOrg())

        user = {name: ORG[name] for name in ("username", "password", "security_token")}
        with mock.patch("requests.Session", Session), mock.patch("requests.sessions.Session", Session):
            bulk = SalesforceBulk(**user)
            self.assertTrue(bulk.create_insert_job("Account"))

    def test_jobs_of_each_kind(self):
        for job in (
            self.bulk.create_insert_job("Account", contentType="CSV"),
            self.bulk.create_update_job("Account"),
            self.bulk.create_delete_job("Account"),
            self.bulk.create_upsert_job("Account", external_id_name="Id"),
            self.bulk.create_query_job("User"),
        ):
            self.assertTrue(job.startswith("750"), job)

    def test_a_job_is_closed(self):
        job = self.bulk.create_insert_job("Account")
        self.assertEqual(self.bulk.job_state(job), "Open")
        self.bulk.close_job(job)
        self.assertEqual(self.bulk.job_state(job), "Closed")

    def test_a_job_is_aborted(self):
        job = self.bulk.create_insert_job("Account")
        self.bulk.abort_job(job)
        self.assertEqual(self.bulk.job_state(job), "Aborted")

    def test_a_session_that_expires_within_a_job(self):
        job = self.bulk.create_insert_job("Account")
        pull("expire-sessions")
        with self.assertRaises(BulkApiError) as raised:
            self.bulk.close_job(job)
        self.assertIn("InvalidSessionId", str(raised.exception))
        self.bulk.sessionId = login()
        self.bulk.close_job(job)
        self.assertEqual(self.bulk.job_state(job), "Closed")

    def test_an_expired_session_is_not_begun_anew(self):
        before = stats()
        pull("expire-sessions")
        with self.assertRaises(BulkApiError) as raised:
            self.bulk.create_insert_job("Account")
        self.assertEqual(raised.exception.status_code, 400)
        self.assertIn("InvalidSessionId", str(raised.exception))
        self.assertEqual(stats()["data_rejected"] - before["data_rejected"], 1)

    def test_an_oauth_session_works_too(self):
        form = {"grant_type": "client_credentials", "client_id": ORG["client_id"]}
        form["client_secret"] = ORG["client_secret"]
        answer = session().post(f"{ORG['base_url']}/services/oauth2/token", data=form).json()
        bulk = SalesforceBulk(sessionId=answer["access_token"], host=ORG["base_url"])
        self.assertTrue(bulk.create_insert_job("Contact"))

    def test_a_retired_version(self):
        bulk = SalesforceBulk(sessionId=self.bulk.sessionId, host=ORG["base_url"], API_version="30.0")
        with self.assertRaises(BulkApiError) as raised:
            bulk.create_insert_job("Account")
        self.assertIn("InvalidVersion", str(raised.exception))


if __name__ == "__main__":
    unittest.main()

"""aiosalesforce against the org that `run` has started."""

import asyncio
import logging
import unittest

import httpx
from aiosalesforce import Salesforce
from aiosalesforce.auth import ClientCredentialsFlow, JwtBearerFlow, SoapLogin
from aiosalesforce.exceptions import AuthenticationError, NotFoundError, SalesforceError

from python_support import ORG, pull, stats

# The test case turns asyncio's debug mode on, which reports slow callbacks.
logging.getLogger("asyncio").setLevel(logging.ERROR)

USER_ID = "005xx000001SwiUAAS"
QUERY = "SELECT Id, Name FROM Account WHERE Name = 'Acme'"


class ToTheOrg(httpx.AsyncHTTPTransport):
    """Takes what is meant for the My Domain, which the client insists on, to the org."""

    async def handle_async_request(self, request):
        org = httpx.URL(ORG["base_url"])
        request.url = request.url.copy_with(scheme=org.scheme, host=org.host, port=org.port)
        return await super().handle_async_request(request)


def client_credentials():
    return ClientCredentialsFlow(ORG["client_id"], ORG["client_secret"])


def jwt():
    return JwtBearerFlow(ORG["client_id"], ORG["username"], ORG["jwt_private_key"])


class Test(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.http = httpx.AsyncClient(transport=ToTheOrg(), trust_env=False)

    async def asyncTearDown(self):
        await self.http.aclose()

    def client(self, auth, **settings):
        url = "https://example.my.salesforce.com"
        return Salesforce(self.http, base_url=url, auth=auth, **settings)

    async def names(self, client, query=QUERY):
        return [record["Name"] async for record in client.query(query)]

    async def test_client_credentials(self):
        self.assertEqual(await self.names(self.client(client_credentials())), ["Acme"])

    async def test_client_credentials_refused(self):
        client = self.client(ClientCredentialsFlow(ORG["client_id"], "wrong"))
        with self.assertRaises(AuthenticationError) as raised:
            await self.names(client)
        self.assertEqual(raised.exception.error_code, "invalid_client")

    async def test_jwt_bearer(self):
        self.assertEqual(await self.names(self.client(jwt())), ["Acme"])

    async def test_jwt_bearer_refused(self):
        client = self.client(JwtBearerFlow("unknown", ORG["username"], ORG["jwt_private_key"]))
        with self.assertRaises(AuthenticationError) as raised:
            await self.names(client)
        self.assertEqual(raised.exception.error_code, "invalid_client_id")

    async def test_soap_login_with_a_password_that_needs_no_escapes(self):
        auth = SoapLogin(ORG["username"], "wrong", "wrong")
        with self.assertRaises(AuthenticationError) as raised:
            await self.names(self.client(auth))
        self.assertEqual(raised.exception.error_code, "INVALID_LOGIN")

    async def test_it_does_not_escape_a_password_for_xml(self):
        auth = SoapLogin(ORG["username"], ORG["password"], ORG["security_token"])
        with self.assertRaises(AuthenticationError) as raised:
            await self.names(self.client(auth))
        self.assertEqual(raised.exception.error_code, "UNKNOWN_EXCEPTION")

    async def test_an_expired_session_is_begun_anew(self):
        for auth in client_credentials(), jwt():
            client = self.client(auth)
            await self.names(client)
            before = stats()
            pull("expire-sessions")
            self.assertEqual(await self.names(client), ["Acme"])
            after = stats()
            self.assertEqual(after["data_rejected"] - before["data_rejected"], 1)
            self.assertEqual(after["tokens_issued"] - before["tokens_issued"], 1)

    async def test_callers_that_wait_for_a_login_share_it(self):
        before = stats()
        client = self.client(client_credentials())
        await asyncio.gather(*(self.names(client) for _ in range(20)))
        self.assertEqual(stats()["tokens_issued"] - before["tokens_issued"], 1)

    async def test_the_user(self):
        client = self.client(jwt())
        user = await client.sobject.get("User", USER_ID, fields=["Username", "IsActive"])
        self.assertEqual((user["Username"], user["IsActive"]), (ORG["username"], True))
        query = f"SELECT Name FROM User WHERE Id = '{USER_ID}' AND IsActive = true"
        self.assertEqual(await self.names(client, query), ["Ann Example"])

    async def test_create_read_update_delete(self):
        client = self.client(client_credentials())
        id = await client.sobject.create("Account", {"Name": "Before", "NumberOfEmployees": 7})
        await client.sobject.update("Account", id, {"Name": "After"})
        record = await client.sobject.get("Account", id)
        self.assertEqual((record["Name"], record["NumberOfEmployees"]), ("After", 7))
        await client.sobject.delete("Account", id)
        with self.assertRaises(NotFoundError):
            await client.sobject.get("Account", id)

    async def test_pages_of_a_long_result(self):
        client = self.client(client_credentials())
        records = [{"attributes": {"type": "Contact"}, "LastName": f"Async {n}"} for n in range(200)]
        for _ in range(11):
            path = f"{client.base_url}/services/data/v{client.version}/composite/sobjects"
            await client.request("POST", path, json={"records": records})
        query = "SELECT Id FROM Contact WHERE LastName LIKE 'Async%'"
        found = [record async for record in client.query(query, include_all_records=True)]
        self.assertEqual(len(found), 2200)

    async def test_composite(self):
        client = self.client(client_credentials())
        async with client.composite() as composite:
            query = composite.query(QUERY)
            made = composite.sobject.create("Account", {"Name": "Composite"})
            lost = composite.sobject.get("Account", "001xx0000009999AAA")
        self.assertEqual(query.records[0]["Name"], "Acme")
        self.assertTrue(made.id.startswith("001"))
        self.assertEqual(lost.response["httpStatusCode"], 404)

    async def test_composite_batch(self):
        client = self.client(client_credentials())
        async with client.composite.batch() as batch:
            query = batch.query(QUERY)
            made = batch.sobject.create("Account", {"Name": "Batch"})
        self.assertEqual(query.records[0]["Name"], "Acme")
        self.assertTrue(made.id.startswith("001"))

    async def test_an_error_has_its_code(self):
        with self.assertRaises(SalesforceError) as raised:
            await self.names(self.client(jwt()), "SELECT Crew FROM Account")
        self.assertEqual(raised.exception.error_code, "INVALID_FIELD")

    async def test_a_retired_version(self):
        with self.assertRaises(SalesforceError) as raised:
            await self.client(jwt(), version="30.0").get_limits()
        self.assertEqual(raised.exception.error_code, "UNSUPPORTED_API_VERSION")

    async def test_an_ingest_job(self):
        job = await self.client(jwt()).bulk_v2.ingest.create_job("insert", "Account")
        self.assertEqual((job.state, job.object), ("Open", "Account"))


if __name__ == "__main__":
    unittest.main()

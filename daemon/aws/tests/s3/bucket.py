"""moto's S3 on a free port of the loopback; ends when nobody holds its standard input any more.

Usage: bucket.py BUCKET [signed]    Says the port, and with "signed" the only key's id and secret, and checks signatures then.
"""

import os
import sys

import boto3
from moto import settings
from moto.core.authorization import ActionAuthenticatorMixin
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
port = server.get_host_and_port()[1]
of = dict(
    endpoint_url=f"http://127.0.0.1:{port}",
    region_name="us-east-1",
    aws_access_key_id="setting-up",
    aws_secret_access_key="setting-up",
)
boto3.client("s3", **of).create_bucket(Bucket=sys.argv[1])
said = [str(port)]
if "signed" in sys.argv:
    iam = boto3.client("iam", **of)
    for user, allowed in (("lifeboat", "s3:*"), ("reader", "s3:Get*")):
        iam.create_user(UserName=user)
        policy = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"%s","Resource":"*"}]}' % allowed
        iam.put_user_policy(UserName=user, PolicyName="archive", PolicyDocument=policy)
        key = iam.create_access_key(UserName=user)["AccessKey"]
        said += [key["AccessKeyId"], key["SecretAccessKey"]]
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    ActionAuthenticatorMixin.request_count = 0
print(*said, flush=True)
sys.stdin.read()
os._exit(0)

int say(int x);
int part(int x)
{
	return say(x) - 9;
}

int say(int x);
int part(int x)
{
#ifdef NEW
	return say(x) - 8;
#else
	return say(x) - 9;
#endif
}
